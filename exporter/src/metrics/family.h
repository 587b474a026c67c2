/*
 * family.h -- a scrape and the families of its table: what metrics.c and variables.c share.
 */
#ifndef FAMILY_H
#define FAMILY_H

#include "server.h"

enum type { GAUGE, COUNTER, HISTOGRAM, INFO };

/* Where `write` finds the number of a row. */
enum from { FROM_NOWHERE, FROM_SCRAPE, FROM_EXPORTER, FROM_SUMMARY };

struct family;

/* One scrape. */
struct scrape {
	struct memwatch_exporter *exporter;
	struct text *text;
	bool openmetrics;
	bool values; /* whoever asks may know what the variables hold */
	struct memwatch_stats stats;
	struct memwatch_sink_info callback;   /* all sinks of that name together */
	struct memwatch_sink_status recorder; /* all recorders together */
	uint64_t n_sinks, n_recorders, n_recorders_failing, n_connections, n_slow;
};

struct family {
	const char *name; /* of the samples, with _total or _info */
	enum type type;
	const char *help;
	void (*write)(struct scrape *scrape, const struct family *family);
	enum from from;
	size_t offset; /* in what `from` says */
};

/* The start of a sample, up to its value. `label` NULL: none, else with `value`. */
void family_sample(struct scrape *scrape, const struct family *family, const char *label, const char *value);

/* A whole one. */
void family_u64(struct scrape *scrape, const struct family *family, const char *label, const char *value,
		uint64_t number);
void family_seconds(struct scrape *scrape, const struct family *family, const char *variable, uint64_t ns);

#endif
