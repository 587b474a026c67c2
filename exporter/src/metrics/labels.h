/*
 * labels.h -- which variables have metric series of their own, and under which label.
 */
#ifndef LABELS_H
#define LABELS_H

#include "text/text.h"

#include <assert.h>
#include <memwatch/reader.h>

#define LABELS_OVERFLOW "__overflow__"

/*
 * What a scrape shows of one labelled variable, as of the last collection. Small, and apart from the rest: all of them
 * are walked for each family.
 */
struct label {
	uint64_t n_events, last_time_ns;
	union memwatch_number_value value;
	uint32_t text_at; /* of `{variable="…"} ` with the space, escaped, in struct labels' texts */
	uint16_t text_bytes;
	uint8_t number; /* enum memwatch_number */
	uint8_t has_summary;
};
static_assert(sizeof(struct label) == 32, "two of them in a line of the cache");

/* Whose label it is. */
struct label_owner {
	uint64_t region_id;
	uint64_t generation; /* of the last collection that saw the region */
};

struct label_rest {
	uint64_t name_hash;   /* of the name without quotes and escapes */
	uint64_t summary_seq; /* the region's last_seq when the summary was made */
	struct memwatch_summary summary;
};

/* Belongs to the HTTP thread. */
struct labels {
	uint32_t limit;
	uint32_t n, capacity; /* of the next three, in the order in which they came */
	struct label *entries;
	struct label_owner *owners;
	struct label_rest *rests;
	struct text texts;
	uint32_t *by_id, *by_name; /* open addressing, index + 1, 0: empty; n_slots each, a power of two */
	uint32_t n_slots;
	uint64_t generation;
	uint64_t n_retired_events;  /* events of labelled variables that are gone */
	uint64_t n_promoted_events; /* events that variables had when they got a label */
	/* what the last collection found */
	uint64_t n_unlabelled, overflow_events, overflow_last_ns;
};

static inline const char *label_text(const struct labels *labels, const struct label *label)
{
	return labels->texts.data + label->text_at;
}

void labels_init(struct labels *labels, uint32_t limit);
void labels_fini(struct labels *labels);

/* Reads all regions of the watcher. 0 or -errno. */
int labels_collect(struct labels *labels, memwatch *watcher);

/* What the unlabelled ones have in events, of `total` for the watcher; read after the collection. Never goes down. */
void labels_overflow(struct labels *labels, uint64_t total);

#endif
