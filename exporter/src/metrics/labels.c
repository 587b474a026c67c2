/*
 * labels.c -- DESIGN: which variables have labels of their own. HTTP thread, at each scrape.
 *
 * A variable keeps its label until its region is removed: a series that comes and goes is worse than one that is
 * missing. A place that becomes free goes to the next region without one.
 *
 * Ten thousand variables do not fit into the caches. So what a scrape reads is kept dense, in the order in which the
 * watcher lists it: the next variable is nearly always the one behind the last. Label texts are written once and kept
 * one behind the other, so that a scrape copies them.
 *
 * Labels must differ, since a repeated series makes Prometheus reject the whole scrape. Cleaning can make two names
 * equal: the later one gets the region's id appended.
 *
 * The overflow is the number of all events without those of the labelled variables. What a variable had before it got
 * its label stays in the overflow, which is a counter and must not go down.
 */
#include "labels.h"

#include <errno.h>
#include <stdlib.h>

enum { COLLECT_BATCH = 256 };

void labels_init(struct labels *labels, uint32_t limit)
{
	memset(labels, 0, sizeof *labels);
	labels->limit = limit;
}

void labels_fini(struct labels *labels)
{
	free(labels->entries);
	free(labels->owners);
	free(labels->rests);
	text_fini(&labels->texts);
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

/* The index of the region's label, or labels->n. `guess` is where it may be. */
static uint32_t find_id(const struct labels *labels, uint64_t region_id, uint32_t guess)
{
	if (labels->n_slots == 0)
		return labels->n;
	if (guess < labels->n && labels->owners[guess].region_id == region_id)
		return guess;
	for (uint32_t i = (uint32_t)mix(region_id) & (labels->n_slots - 1); labels->by_id[i] != 0;
	     i = (i + 1) & (labels->n_slots - 1)) {
		if (labels->owners[labels->by_id[i] - 1].region_id == region_id)
			return labels->by_id[i] - 1;
	}
	return labels->n;
}

/* Names are compared by their 64-bit hash: two that share it would only have an id appended needlessly. */
static bool name_taken(const struct labels *labels, uint64_t hash)
{
	if (labels->n_slots == 0)
		return false;
	for (uint32_t i = (uint32_t)hash & (labels->n_slots - 1); labels->by_name[i] != 0;
	     i = (i + 1) & (labels->n_slots - 1)) {
		if (labels->rests[labels->by_name[i] - 1].name_hash == hash)
			return true;
	}
	return false;
}

static void fill_slots(struct labels *labels)
{
	memset(labels->by_id, 0, labels->n_slots * sizeof *labels->by_id);
	memset(labels->by_name, 0, labels->n_slots * sizeof *labels->by_name);
	for (uint32_t i = 0; i < labels->n; i++) {
		put(labels, labels->by_id, mix(labels->owners[i].region_id), i);
		put(labels, labels->by_name, labels->rests[i].name_hash, i);
	}
}

static int grow_array(void *array, size_t size_bytes)
{
	void **place = array, *grown = realloc(*place, size_bytes);
	if (!grown)
		return -ENOMEM;
	*place = grown;
	return 0;
}

static int grow(struct labels *labels)
{
	uint32_t capacity = labels->capacity == 0 ? 64 : labels->capacity * 2;
	uint32_t *by_id, *by_name;
	if (grow_array(&labels->entries, capacity * sizeof *labels->entries) < 0 ||
	    grow_array(&labels->owners, capacity * sizeof *labels->owners) < 0 ||
	    grow_array(&labels->rests, capacity * sizeof *labels->rests) < 0)
		return -ENOMEM;
	by_id = calloc(capacity * 2, sizeof *by_id);
	by_name = calloc(capacity * 2, sizeof *by_name);
	if (!by_id || !by_name) {
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

static int write_label(struct labels *labels, const struct memwatch_region_info *info, struct label *label,
		       uint64_t *ret_name_hash)
{
	struct text clean = { 0 }, *texts = &labels->texts;
	size_t before = texts->n_bytes;
	text_clean(&clean, info->name);
	*ret_name_hash = make_unique(labels, &clean, info->id);
	text_string(texts, "{variable=\"");
	if (!clean.failed)
		text_label(texts, clean.data, clean.n_bytes);
	text_string(texts, "\"} ");
	text_fini(&clean);
	if (texts->failed) {
		texts->failed = false;
		texts->n_bytes = before;
		return -ENOMEM;
	}
	label->text_at = (uint32_t)before;
	label->text_bytes = (uint16_t)(texts->n_bytes - before);
	return 0;
}

/* Gives the region a label; returns its index, or labels->n when that did not succeed. */
static uint32_t add(struct labels *labels, memwatch *watcher, const struct memwatch_region_sample *sample, int promoted)
{
	struct memwatch_region_info info;
	struct label label = { 0 };
	struct label_rest rest = { 0 };
	if (memwatch_region_info_get(watcher, sample->id, &info) < 0) /* removed meanwhile */
		return labels->n;
	if (labels->n == labels->capacity && grow(labels) < 0)
		return labels->n;
	if (write_label(labels, &info, &label, &rest.name_hash) < 0)
		return labels->n;
	labels->entries[labels->n] = label;
	labels->owners[labels->n] = (struct label_owner){ .region_id = info.id };
	labels->rests[labels->n] = rest;
	put(labels, labels->by_id, mix(info.id), labels->n);
	put(labels, labels->by_name, rest.name_hash, labels->n);
	labels->n_promoted_events += promoted ? sample->delivered : 0;
	return labels->n++;
}

/* Reads the array's summary, which costs a pass over it, only when it has changed since the last time. */
static void take_summary(struct label *label, struct label_rest *rest, memwatch *watcher,
			 const struct memwatch_region_sample *sample)
{
	if (sample->number != MEMWATCH_NUMBER_NONE || (label->has_summary && rest->summary_seq == sample->last_seq))
		return;
	label->has_summary = memwatch_region_summary(watcher, sample->id, &rest->summary) == 0;
	rest->summary_seq = sample->last_seq;
}

static void take(struct labels *labels, uint32_t index, memwatch *watcher, const struct memwatch_region_sample *sample)
{
	struct label *label = &labels->entries[index];
	labels->owners[index].generation = labels->generation;
	label->n_events = sample->delivered;
	label->last_time_ns = sample->last_time_ns;
	label->number = sample->number & 3;
	label->value = sample->value;
	if (sample->metric)
		take_summary(label, &labels->rests[index], watcher, sample);
}

/* Moves the texts of the labels together. Without memory for that the holes stay. */
static void pack_texts(struct labels *labels)
{
	struct text packed = { 0 };
	for (uint32_t i = 0; i < labels->n; i++)
		text_bytes(&packed, label_text(labels, &labels->entries[i]), labels->entries[i].text_bytes);
	if (packed.failed) {
		text_fini(&packed);
		return;
	}
	text_fini(&labels->texts);
	labels->texts = packed;
	for (uint32_t i = 0, at = 0; i < labels->n; at += labels->entries[i++].text_bytes)
		labels->entries[i].text_at = at;
}

/* Forgets the labelled variables that this collection has not seen. */
static void retire(struct labels *labels)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < labels->n; i++) {
		if (labels->owners[i].generation != labels->generation) {
			labels->n_retired_events += labels->entries[i].n_events;
			continue;
		}
		labels->entries[kept] = labels->entries[i];
		labels->owners[kept] = labels->owners[i];
		labels->rests[kept++] = labels->rests[i];
	}
	if (kept == labels->n)
		return;
	labels->n = kept;
	fill_slots(labels);
	pack_texts(labels);
}

/* --- collection ------------------------------------------------------------------------------------------------- */

static void take_unlabelled(struct labels *labels, const struct memwatch_region_sample *sample)
{
	labels->n_unlabelled++;
	if (sample->last_time_ns > labels->overflow_last_ns)
		labels->overflow_last_ns = sample->last_time_ns;
}

/* One pass over the regions. `promoting`: those that get a label were in the overflow before. */
static int pass(struct labels *labels, memwatch *watcher, bool promoting)
{
	struct memwatch_region_sample *samples = malloc(COLLECT_BATCH * sizeof *samples);
	uint32_t index = UINT32_MAX;
	uint64_t cursor = 0;
	int n = -ENOMEM;
	labels->n_unlabelled = 0;
	labels->overflow_last_ns = 0;
	while (samples && (n = memwatch_region_sample_list(watcher, &cursor, samples, COLLECT_BATCH)) > 0) {
		for (int i = 0; i < n; i++) {
			index = find_id(labels, samples[i].id, index + 1);
			if (index == labels->n && labels->n < labels->limit)
				index = add(labels, watcher, &samples[i], promoting);
			if (index < labels->n)
				take(labels, index, watcher, &samples[i]);
			else
				take_unlabelled(labels, &samples[i]);
		}
	}
	free(samples);
	return n;
}

/*
 * A second pass is needed only when places became free while others wait for one: which places are free is known
 * after the first.
 */
int labels_collect(struct labels *labels, memwatch *watcher)
{
	labels->generation++;
	int error = pass(labels, watcher, false);
	if (error)
		return error;
	retire(labels);
	if (labels->n_unlabelled > 0 && labels->n < labels->limit)
		error = pass(labels, watcher, true);
	return error;
}

void labels_overflow(struct labels *labels, uint64_t total)
{
	uint64_t labelled = labels->n_retired_events;
	for (uint32_t i = 0; i < labels->n; i++)
		labelled += labels->entries[i].n_events;
	uint64_t events = total + labels->n_promoted_events;
	events = events > labelled ? events - labelled : 0;
	if (events > labels->overflow_events)
		labels->overflow_events = events;
}
