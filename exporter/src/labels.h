/*
 * labels.h -- which variables have metric series of their own, and under which label.
 */
#ifndef MEMWATCH_EXPORTER_LABELS_H
#define MEMWATCH_EXPORTER_LABELS_H

#include "text.h"

#include <memwatch/memwatch.h>

#define LABELS_OVERFLOW "__overflow__"

/* One labelled variable, as of the last collection. */
struct label {
	uint64_t region_id;
	char *text; /* `{variable="…"} ` with the space, escaped */
	size_t text_bytes;
	uint64_t name_hash;  /* of the name without quotes and escapes */
	uint64_t generation; /* of the last collection that saw the region */
	uint64_t n_events, last_time_ns, last_seq;
	enum memwatch_number number;
	int64_t as_int;
	uint64_t as_uint;
	double as_double;
	int has_summary;
	uint64_t summary_seq; /* last_seq when the summary was made */
	struct memwatch_summary summary;
};

/* Belongs to the HTTP thread. */
struct labels {
	uint32_t limit;
	struct label *entries; /* n of them, in the order in which they came */
	uint32_t n, capacity;
	uint32_t *by_id, *by_name; /* open addressing, index + 1, 0: empty; n_slots each, a power of two */
	uint32_t n_slots;
	uint64_t generation;
	uint64_t n_retired_events;  /* events of labelled variables that are gone */
	uint64_t n_promoted_events; /* events that variables had when they got a label */
	/* what the last collection found */
	uint64_t n_unlabelled, overflow_events, overflow_last_ns;
};

void labels_init(struct labels *labels, uint32_t limit);
void labels_fini(struct labels *labels);

/* Reads all regions of the watcher. 0 or -errno. */
int labels_collect(struct labels *labels, memwatch *watcher);

/* What the unlabelled ones have in events, of `total` for the watcher; read after the collection. Never goes down. */
void labels_overflow(struct labels *labels, uint64_t total);

#endif
