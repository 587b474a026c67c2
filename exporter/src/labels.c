/*
 * labels.c -- the table of labelled variables.
 *
 * DESIGN. HTTP thread, at each scrape. Who is labelled stays labelled until its region is removed: a series that comes
 * and goes is worse than one that is missing. A place that becomes free goes to the next region without one. Labels
 * are written once and kept, so that a scrape copies them. They must differ (a repeated series makes Prometheus reject
 * the scrape), and cleaning can make two names equal: the later one gets the region's id.
 *
 * The overflow is all events minus those of the labelled ones; what a promoted variable brought along stays in it, so
 * that it is a counter.
 */
#include "labels.h"

#include <errno.h>
#include <stdlib.h>

enum { COLLECT_BATCH = 64 };

void labels_init(struct labels *labels, uint32_t limit)
{
	memset(labels, 0, sizeof *labels);
	labels->limit = limit;
}

void labels_fini(struct labels *labels)
{
	for (uint32_t i = 0; i < labels->n; i++)
		free(labels->entries[i].text);
	free(labels->entries);
	free(labels->by_id);
	free(labels->by_name);
}

/* --- the hash tables -------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 32) * 0x9e3779b97f4a7c15;
	return x ^ x >> 29;
}

static uint64_t hash_bytes(const char *bytes, size_t n_bytes)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (size_t i = 0; i < n_bytes; i++)
		hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001b3;
	return mix(hash);
}

static void put(const struct labels *labels, uint32_t *slots, uint64_t hash, uint32_t index)
{
	uint32_t i = (uint32_t)hash & (labels->n_slots - 1);

	while (slots[i] != 0)
		i = (i + 1) & (labels->n_slots - 1);
	slots[i] = index + 1;
}

static struct label *find_id(const struct labels *labels, uint64_t region_id)
{
	if (labels->n_slots == 0)
		return NULL;
	for (uint32_t i = (uint32_t)mix(region_id) & (labels->n_slots - 1); labels->by_id[i] != 0;
	     i = (i + 1) & (labels->n_slots - 1)) {
		struct label *label = &labels->entries[labels->by_id[i] - 1];

		if (label->region_id == region_id)
			return label;
	}
	return NULL;
}

/* Names are compared by their 64-bit hash: two that share it would only have an id appended needlessly. */
static int name_taken(const struct labels *labels, uint64_t hash)
{
	if (labels->n_slots == 0)
		return 0;
	for (uint32_t i = (uint32_t)hash & (labels->n_slots - 1); labels->by_name[i] != 0;
	     i = (i + 1) & (labels->n_slots - 1)) {
		if (labels->entries[labels->by_name[i] - 1].name_hash == hash)
			return 1;
	}
	return 0;
}

static void fill_slots(struct labels *labels)
{
	memset(labels->by_id, 0, labels->n_slots * sizeof *labels->by_id);
	memset(labels->by_name, 0, labels->n_slots * sizeof *labels->by_name);
	for (uint32_t i = 0; i < labels->n; i++) {
		put(labels, labels->by_id, mix(labels->entries[i].region_id), i);
		put(labels, labels->by_name, labels->entries[i].name_hash, i);
	}
}

static int grow(struct labels *labels)
{
	uint32_t capacity = labels->capacity == 0 ? 64 : labels->capacity * 2;
	struct label *entries = realloc(labels->entries, capacity * sizeof *entries);
	uint32_t *by_id, *by_name;

	if (entries == NULL)
		return -ENOMEM;
	labels->entries = entries;
	by_id = calloc(capacity * 2, sizeof *by_id);
	by_name = calloc(capacity * 2, sizeof *by_name);
	if (by_id == NULL || by_name == NULL) {
		free(by_id);
		free(by_name);
		return -ENOMEM;
	}
	free(labels->by_id);
	free(labels->by_name);
	labels->by_id = by_id;
	labels->by_name = by_name;
	labels->capacity = capacity;
	labels->n_slots = capacity * 2;
	fill_slots(labels);
	return 0;
}

/* --- labels ----------------------------------------------------------------------------------------------------- */

/* Appends `#<id>` until no other label is the same. Returns the hash. */
static uint64_t make_unique(const struct labels *labels, struct text *clean, uint64_t region_id)
{
	uint64_t hash = hash_bytes(clean->data, clean->n_bytes);
	const uint64_t overflow = hash_bytes(LABELS_OVERFLOW, strlen(LABELS_OVERFLOW));

	while (!clean->failed && (hash == overflow || name_taken(labels, hash))) {
		text_char(clean, '#');
		text_u64(clean, region_id);
		hash = hash_bytes(clean->data, clean->n_bytes);
	}
	return hash;
}

static int write_label(const struct labels *labels, const struct memwatch_region_info *info, struct label *ret_label)
{
	struct text clean = { 0 }, text = { 0 };

	text_clean(&clean, info->name, strlen(info->name));
	ret_label->name_hash = make_unique(labels, &clean, info->id);
	text_string(&text, "{variable=\"");
	if (!clean.failed)
		text_label(&text, clean.data, clean.n_bytes);
	text_string(&text, "\"} ");
	text_fini(&clean);
	if (text.failed) {
		text_fini(&text);
		return -ENOMEM;
	}
	ret_label->text = text.data;
	ret_label->text_bytes = text.n_bytes;
	return 0;
}

static struct label *add(struct labels *labels, const struct memwatch_region_info *info, int promoted)
{
	struct label label = { .region_id = info->id };

	if (labels->n == labels->capacity && grow(labels) < 0)
		return NULL;
	if (write_label(labels, info, &label) < 0)
		return NULL;
	labels->entries[labels->n] = label;
	put(labels, labels->by_id, mix(label.region_id), labels->n);
	put(labels, labels->by_name, label.name_hash, labels->n);
	labels->n_promoted_events += promoted ? info->ledger.delivered : 0;
	return &labels->entries[labels->n++];
}

static void take_value(struct label *label, const struct memwatch_region_info *info)
{
	label->number = info->number;
	switch (info->number) {
	case MEMWATCH_NUMBER_NONE: break;
	case MEMWATCH_NUMBER_INT: label->as_int = info->value.as_int; break;
	case MEMWATCH_NUMBER_UINT: label->as_uint = info->value.as_uint; break;
	case MEMWATCH_NUMBER_DOUBLE: label->as_double = info->value.as_double; break;
	}
}

/* Reads the array's summary, which costs a pass over it, only when it has changed since the last time. */
static void take_summary(struct label *label, memwatch *watcher, const struct memwatch_region_info *info)
{
	if (!info->metric || info->number != MEMWATCH_NUMBER_NONE)
		return;
	if (label->has_summary && label->summary_seq == info->last_seq)
		return;
	label->has_summary = memwatch_region_summary(watcher, info->id, &label->summary) == 0;
	label->summary_seq = info->last_seq;
}

static void take(struct labels *labels, struct label *label, memwatch *watcher, const struct memwatch_region_info *info)
{
	label->generation = labels->generation;
	label->n_events = info->ledger.delivered;
	label->last_time_ns = info->last_time_ns;
	label->last_seq = info->last_seq;
	take_value(label, info);
	take_summary(label, watcher, info);
}

/* Forgets the labelled variables that this collection has not seen. */
static void retire(struct labels *labels)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < labels->n; i++) {
		struct label *label = &labels->entries[i];

		if (label->generation == labels->generation) {
			labels->entries[kept++] = *label;
			continue;
		}
		labels->n_retired_events += label->n_events;
		free(label->text);
	}
	if (kept == labels->n)
		return;
	labels->n = kept;
	fill_slots(labels);
}

/* --- collection ------------------------------------------------------------------------------------------------- */

/* One pass over the regions. `promoting`: those that get a label were in the overflow before. */
static int pass(struct labels *labels, memwatch *watcher, int promoting)
{
	struct memwatch_region_info *infos = malloc(COLLECT_BATCH * sizeof *infos);
	uint64_t cursor = 0;
	int n = -ENOMEM;

	labels->n_unlabelled = 0;
	labels->overflow_last_ns = 0;
	while (infos != NULL && (n = memwatch_region_list(watcher, &cursor, infos, COLLECT_BATCH)) > 0) {
		for (int i = 0; i < n; i++) {
			struct label *label = find_id(labels, infos[i].id);

			if (label == NULL && labels->n < labels->limit)
				label = add(labels, &infos[i], promoting);
			if (label != NULL) {
				take(labels, label, watcher, &infos[i]);
				continue;
			}
			labels->n_unlabelled++;
			if (infos[i].last_time_ns > labels->overflow_last_ns)
				labels->overflow_last_ns = infos[i].last_time_ns;
		}
	}
	free(infos);
	return n;
}

/*
 * A second pass is needed only when places became free while others wait for one: which places are free is known
 * after the first.
 */
int labels_collect(struct labels *labels, memwatch *watcher)
{
	int error;

	labels->generation++;
	error = pass(labels, watcher, 0);
	if (error < 0)
		return error;
	retire(labels);
	if (labels->n_unlabelled > 0 && labels->n < labels->limit)
		error = pass(labels, watcher, 1);
	return error < 0 ? error : 0;
}

void labels_overflow(struct labels *labels, uint64_t total)
{
	uint64_t labelled = labels->n_retired_events, events;

	for (uint32_t i = 0; i < labels->n; i++)
		labelled += labels->entries[i].n_events;
	events = total + labels->n_promoted_events;
	events = events > labelled ? events - labelled : 0;
	if (events > labels->overflow_events)
		labels->overflow_events = events;
}
