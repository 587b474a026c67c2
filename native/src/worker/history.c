/*
 * history.c -- DESIGN: records hang in two lists, by age over the whole watcher (eviction takes the oldest) and by age
 * within their region (loading walks from the newest back). What is evicted is always the oldest record of its region,
 * so that what is kept of a region is one unbroken chain from the shadow back. A change without an event (filtered, or
 * held back by max_rate) has its record all the same: version S is the bytes as they were when event S was made.
 */
#include "history.h"

#include "../base/structs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t cost_of(const struct undo *undo)
{
	return sizeof *undo + undo->n_bytes + (undo->event ? undo->event->size_bytes : 0);
}

static void unlink_record(struct history *history, struct undo *undo)
{
	struct region_meta *meta = undo->meta;
	*(undo->newer ? &undo->newer->older : &history->newest) = undo->older;
	*(undo->older ? &undo->older->newer : &history->oldest) = undo->newer;
	*(undo->region_newer ? &undo->region_newer->region_older : &meta->newest_undo) = undo->region_older;
	*(undo->region_older ? &undo->region_older->region_newer : &meta->oldest_undo) = undo->region_newer;
	history->bytes -= cost_of(undo);
	meta->history_bytes -= cost_of(undo);
	history->n_versions--;
	if (undo->event)
		memwatch_event_unref(&undo->event->shown);
	mem_free(undo->bytes);
	mem_free(undo);
}

static void link_record(struct history *history, struct undo *undo)
{
	struct region_meta *meta = undo->meta;
	undo->older = history->newest;
	*(undo->older ? &undo->older->newer : &history->oldest) = undo;
	history->newest = undo;
	undo->region_older = meta->newest_undo;
	*(undo->region_older ? &undo->region_older->region_newer : &meta->oldest_undo) = undo;
	meta->newest_undo = undo;
	history->bytes += cost_of(undo);
	meta->history_bytes += cost_of(undo);
	history->n_versions++;
}

static void shrink(struct history *history, const struct region_meta *meta)
{
	uint64_t own_budget = meta->rules ? meta->rules->history_budget : 0;
	while (own_budget && meta->history_bytes > own_budget) {
		unlink_record(history, meta->oldest_undo);
		history->n_evicted++;
	}
	while (history->bytes > history->budget) {
		unlink_record(history, history->oldest);
		history->n_evicted++;
	}
}

void history_make_room(struct history *history, size_t n_bytes)
{
	while (history->oldest && history->bytes + n_bytes > history->budget) {
		unlink_record(history, history->oldest);
		history->n_evicted++;
	}
}

void history_forget(struct history *history, struct region *region)
{
	while (region->meta && region->meta->newest_undo)
		unlink_record(history, region->meta->newest_undo);
}

void history_fini(struct history *history)
{
	while (history->oldest)
		unlink_record(history, history->oldest);
}

/* A change that could not be kept: what is older cannot be loaded any more. */
static void break_chain(struct history *history, struct region *region)
{
	for (const struct undo *kept = region->meta->newest_undo; kept; kept = kept->region_older)
		history->n_evicted++;
	history_forget(history, region);
	history->n_evicted += history->budget != 0;
}

void history_add(struct history *history, struct region *region, struct diff *diff)
{
	bool fits = !diff->undo_lost && sizeof(struct undo) + diff->undo_bytes <= history->budget;
	region->meta->unreported++;
	struct undo *undo = fits ? mem_alloc(sizeof *undo) : NULL;
	if (undo && !(undo->bytes = diff_take_undo(diff))) {
		mem_free(undo);
		undo = NULL;
	}
	if (!undo) {
		break_chain(history, region);
		return;
	}
	undo->meta = region->meta;
	undo->seq = undo->before_seq = region->meta->last_seq;
	undo->n_bytes = diff->undo_bytes;
	link_record(history, undo);
	shrink(history, region->meta);
}

void history_name(struct history *history, struct region *region, struct event *event, uint64_t n_behind)
{
	struct undo *undo = region->meta->newest_undo;
	region->meta->unreported = n_behind;
	for (; n_behind && undo; n_behind--, undo = undo->region_older)
		undo->seq = undo->before_seq = event->shown.seq;
	if (!undo || undo->event)
		return;
	memwatch_event_ref(&event->shown);
	undo->event = event;
	undo->seq = event->shown.seq;
	history->bytes += event->size_bytes;
	region->meta->history_bytes += event->size_bytes;
	shrink(history, region->meta);
}

/* Was the record's change made after version `seq`? */
static bool is_after(const struct undo *undo, uint64_t seq)
{
	return undo->seq > seq || (!undo->event && undo->before_seq >= seq);
}

static const struct undo *newest_of(const struct region *region)
{
	return region->meta ? region->meta->newest_undo : NULL;
}

/* Are all changes since the last event kept? */
static bool unreported_kept(const struct region *region)
{
	uint64_t n = 0;
	for (const struct undo *undo = newest_of(region); undo && !undo->event; undo = undo->region_older)
		n += undo->before_seq == region->meta->last_seq;
	return !region->meta || n == region->meta->unreported;
}

bool history_has(const struct region *region, uint64_t seq)
{
	if (seq == region_last_seq(region))
		return unreported_kept(region);
	for (const struct undo *undo = newest_of(region); undo; undo = undo->region_older)
		if (undo->before_seq == seq)
			return true;
	return false;
}

static uint64_t oldest_version(const struct region *region)
{
	return region->meta && region->meta->oldest_undo ? region->meta->oldest_undo->before_seq
							 : region_last_seq(region);
}

bool history_had(const struct region *region, uint64_t seq)
{
	if (seq && seq <= region->added_seq)
		return false;
	return seq == region_last_seq(region) || seq < oldest_version(region) || history_has(region, seq);
}

static int missing(const struct region *region, uint64_t seq)
{
	if (seq > region_last_seq(region))
		return error_set(-ENOENT, "\"%s\" has no version %llu", region_name(region), (unsigned long long)seq);
	return error_set(-ENOENT,
			 "version %llu of \"%s\" is not kept any more; the oldest kept is %llu (raise history_budget)",
			 (unsigned long long)seq, region_name(region), (unsigned long long)oldest_version(region));
}

int history_version(const struct region *region, uint64_t seq, uint64_t *ret_seq)
{
	uint64_t version = region_last_seq(region);
	for (const struct undo *undo = newest_of(region); undo && version > seq; undo = undo->region_older)
		version = undo->before_seq;
	if (version > seq)
		return missing(region, seq);
	*ret_seq = version;
	return 0;
}

/* Puts the record's old bytes of [offset, offset + size) into the buffer that holds these bytes. */
static void apply(const struct undo *undo, uint64_t offset, uint8_t *buffer, uint64_t size)
{
	struct undo_run run;
	for (size_t at = 0; at < undo->n_bytes; at += sizeof run + run.size_bytes) {
		memcpy(&run, undo->bytes + at, sizeof run);
		uint64_t from = max_u64(run.offset, offset), to = min_u64(run.offset + run.size_bytes, offset + size);
		if (from < to)
			memcpy(buffer + (from - offset), undo->bytes + at + sizeof run + (from - run.offset),
			       to - from);
	}
}

int history_load(const struct region *region, uint64_t seq, uint8_t *buffer, size_t size)
{
	if (!history_has(region, seq))
		return missing(region, seq);
	if (size)
		memcpy(buffer, region->shadow, size);
	for (const struct undo *undo = newest_of(region); size && undo && is_after(undo, seq);
	     undo = undo->region_older)
		apply(undo, 0, buffer, size);
	return 0;
}

/* --- blame --- */

/* What is not blamed yet and differs from the version before is `event`'s. */
static bool blame_bytes(const uint8_t *now, const uint8_t *before, uint64_t n, uint32_t *whose, uint32_t number)
{
	bool open = false;
	for (uint64_t i = 0; i < n; i++) {
		if (!whose[i] && now[i] != before[i])
			whose[i] = number;
		open |= !whose[i];
	}
	return open;
}

static const struct undo *record_number(const struct region *region, uint32_t number)
{
	const struct undo *undo = newest_of(region);
	for (uint32_t i = 1; undo && i < number; i++)
		undo = undo->region_older;
	return undo;
}

static int blame_runs(const struct region *region, uint64_t offset, const uint32_t *whose, uint64_t size_bytes,
		      struct memwatch_blame *blames, size_t n, size_t struct_bytes)
{
	size_t count = 0;
	for (uint64_t i = 0, end; i < size_bytes && count < n; i = end, count++) {
		for (end = i + 1; end < size_bytes && whose[end] == whose[i];)
			end++;
		/* A change without event belongs to the next event made of it, if there is one. */
		const struct undo *undo = whose[i] ? record_number(region, whose[i]) : NULL;
		while (undo && !undo->event)
			undo = undo->region_newer;
		struct memwatch_blame blame = { offset + i, end - i, undo ? &undo->event->shown : NULL };
		memwatch_struct_write(structs_at(blames, count, struct_bytes), struct_bytes, &blame, sizeof blame);
		if (undo)
			memwatch_event_ref(&undo->event->shown);
	}
	return (int)count;
}

int history_blame(const struct region *region, uint64_t offset, uint64_t size_bytes, uint8_t *work,
		  struct memwatch_blame *blames, size_t n, size_t struct_bytes)
{
	uint8_t *now = work, *before = work + size_bytes;
	uint32_t number = 0, *whose = mem_alloc(size_bytes * sizeof *whose);
	bool open = true;
	if (!whose)
		return error_set(-ENOMEM, "no memory to blame %llu bytes", (unsigned long long)size_bytes);
	memcpy(now, region->shadow + offset, size_bytes);
	memcpy(before, now, size_bytes);
	for (const struct undo *undo = newest_of(region); undo && open; undo = undo->region_older) {
		apply(undo, offset, before, size_bytes);
		open = blame_bytes(now, before, size_bytes, whose, ++number);
		memcpy(now, before, size_bytes);
	}
	int count = blame_runs(region, offset, whose, size_bytes, blames, n, struct_bytes);
	mem_free(whose);
	return count;
}

/* --- keys --- */

void history_key(uint64_t region_id, uint64_t seq, char ret_key[MEMWATCH_KEY_SIZE])
{
	snprintf(ret_key, MEMWATCH_KEY_SIZE, "%016llx%016llx", (unsigned long long)region_id, (unsigned long long)seq);
}

int history_key_parse(const char *key, uint64_t *ret_region_id, uint64_t *ret_seq)
{
	unsigned long long region_id, seq;
	if (strlen(key) != MEMWATCH_KEY_SIZE - 1 || strspn(key, "0123456789abcdef") != MEMWATCH_KEY_SIZE - 1 ||
	    sscanf(key, "%16llx%16llx", &region_id, &seq) != 2)
		return error_set(-EINVAL, "not a storage key: 32 hexadecimal digits are");
	*ret_region_id = region_id;
	*ret_seq = seq;
	return 0;
}
