/*
 * identity.h -- what this process is called: its service, which of the service's workers it is, and labels.
 */
#ifndef IDENTITY_H
#define IDENTITY_H

#include "text/text.h"

#include <memwatch/exporter.h>

enum { IDENTITY_LABELS_MAX = 16 };

struct identity_label {
	char name[64], value[128];
};

struct identity {
	char service[128];
	char worker[64]; /* "": none */
	struct identity_label labels[IDENTITY_LABELS_MAX];
	unsigned n_labels;
};

/* From the options, else the environment, else the program. 0, or -EINVAL with a sentence. */
int identity_take(struct identity *identity, const struct memwatch_exporter_options *options);

/* Appends them all as labels of a metric, without the braces. */
void identity_write_labels(const struct identity *identity, struct text *text);

/* Appends the members "service", "worker" and "labels" of a JSON object. */
void identity_write_json(const struct identity *identity, struct text *text);

#endif
