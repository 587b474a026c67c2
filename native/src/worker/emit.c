/*
 * emit.c -- DESIGN: one region's part of a pass: diff, condition, event, history, ledger. Runs on the worker under the
 * engine's lock. What the region's policy hides is never put into the event.
 *
 * Loss: without memory for the event the detection is `dropped` (no_memory); the shadow is up to date all the same, so
 * that the next event is right.
 */
#define _GNU_SOURCE
#include "emit.h"

#include "attribute.h"
#include "deliver.h"
#include "excerpt.h"
#include "guard.h"
#include "held.h"
#include "when.h"
#include "../base/memory.h"

#include <string.h>

enum { AGAIN_BYTES = 64 * PAGE_BYTES };

/* --- what a region shows --- */

static bool is_hashed(const struct region *region)
{
	return region->flags & MEMWATCH_REGION_HASHED;
}

static size_t preview_bytes(const struct memwatch *watcher, const struct region *region)
{
	bool hidden = region->values > MEMWATCH_VALUES_PREVIEW;
	return hidden ? 0 : (size_t)min_u64(watcher->preview_size, region->size_bytes);
}

static bool is_inline(const struct memwatch *watcher, const struct region *region)
{
	return region->values == MEMWATCH_VALUES_FULL && region->size_bytes <= watcher->inline_threshold &&
	       !is_hashed(region);
}

/* How much of the old value an event needs. */
static size_t head_bytes(const struct memwatch *watcher, const struct region *region)
{
	return is_inline(watcher, region) ? (size_t)region->size_bytes : preview_bytes(watcher, region);
}

/* The items that changed, of a value that the event does not hold. */
static bool has_excerpt(const struct memwatch *watcher, const struct region *region)
{
	return region->values == MEMWATCH_VALUES_FULL && !is_inline(watcher, region) && !is_hashed(region);
}

static bool is_limited(const struct region *region)
{
	return region_rules(region) && region_rules(region)->interval_ns;
}

/* --- one region's diff --- */

static bool head_reserve(struct engine *engine, size_t n)
{
	if (n <= engine->pass.head_capacity)
		return true;
	uint8_t *head = mem_grow(engine->pass.head, n);
	if (!head)
		return false;
	engine->pass.head = head;
	engine->pass.head_capacity = n;
	return true;
}

/* How many overwritten bytes the diff is to keep. */
static size_t undo_max(const struct memwatch *watcher, const struct region *region)
{
	bool judged = region_rules(region) && region_rules(region)->when != MEMWATCH_WHEN_CHANGED;
	if (is_hashed(region))
		return 0;
	if (judged || watcher->patches)
		return max_u64(watcher->history.budget, watcher->log->budget_bytes);
	return region->values == MEMWATCH_VALUES_FULL ? watcher->history.budget : 0;
}

/* --- the event --- */

static void fill_layout(struct event *event, const struct layout *layout)
{
	struct memwatch_event *shown = &event->shown;
	shown->format = event_text(event, layout->format ? layout->format : "");
	shown->item_bytes = layout->number.item_bytes;
	shown->fortran_order = layout->fortran_order;
	shown->shape = layout->n_dims ? event_bytes(event, layout->shape, layout->n_dims * sizeof *layout->shape)
				      : NULL;
	shown->n_dims = shown->shape ? layout->n_dims : 0;
}

/* The region's first bytes as they are known now; of a hashed region as memory has them. */
static const uint8_t *new_head(struct event *event, const struct region *region, size_t n)
{
	if (!is_hashed(region))
		return event_bytes(event, region->shadow, n);
	uint8_t *head = event_room(event, n);
	return head && memory_copy(head, region->start, n) == 0 ? head : NULL;
}

static void fill_values(struct engine *engine, struct memwatch *watcher, const struct region *region,
			struct event *event)
{
	struct memwatch_event *shown = &event->shown;
	size_t head = head_bytes(watcher, region);
	shown->preview_bytes = preview_bytes(watcher, region);
	shown->old_preview = head && !is_hashed(region) ? event_bytes(event, engine->pass.head, head) : NULL;
	shown->new_preview = head ? new_head(event, region, head) : NULL;
	if (is_inline(watcher, region)) {
		shown->old_value = shown->old_preview;
		shown->new_value = shown->new_preview;
	}
	if (!shown->preview_bytes)
		shown->old_preview = shown->new_preview = NULL;
}

static void fill_changes(const struct diff *diff, const struct region *region, struct event *event)
{
	event->shown.changed_bytes = diff->changed_bytes;
	if (region->values == MEMWATCH_VALUES_HASH || region->values == MEMWATCH_VALUES_NONE)
		return;
	event->shown.n_changes = diff->n_ranges;
	memcpy(event->ranges, diff->ranges, diff->n_ranges * sizeof *diff->ranges);
}

/* What was written, run by run as the undo has it. */
static void fill_patch(const struct diff *diff, const struct region *region, struct event *event)
{
	struct undo_run run;
	uint8_t *old = diff->undo_lost ? NULL : event_bytes(event, diff->undo, diff->undo_bytes);
	uint8_t *patch = old ? event_bytes(event, diff->undo, diff->undo_bytes) : NULL;
	event->shown.patch = patch;
	event->shown.patch_old = patch ? old : NULL;
	event->shown.patch_bytes = patch ? diff->undo_bytes : 0;
	for (size_t at = 0; patch && at < diff->undo_bytes; at += sizeof run + run.size_bytes) {
		memcpy(&run, patch + at, sizeof run);
		memcpy(patch + at + sizeof run, region->shadow + run.offset, run.size_bytes);
	}
}

/* Whoever may be merged with a later event has room for more. */
static size_t excerpt_side_bytes(const struct memwatch *watcher, const struct region *region)
{
	if (!has_excerpt(watcher, region))
		return 0;
	const struct layout *layout = region_layout(&watcher->engine->regions, region);
	return is_limited(region) ? excerpt_room(max_u64(layout->number.item_bytes, 1))
				  : watcher->engine->pass.excerpt.n_bytes;
}

static void find_excerpt(struct engine *engine, const struct memwatch *watcher, const struct region *region)
{
	uint64_t item_bytes = region_layout(&engine->regions, region)->number.item_bytes;
	if (has_excerpt(watcher, region))
		excerpt_find(&engine->pass.excerpt, &engine->diff, region->shadow, region->size_bytes,
			     max_u64(item_bytes, 1), preview_bytes(watcher, region));
}

static void fill_excerpt(struct engine *engine, const struct memwatch *watcher, const struct region *region,
			 struct event *event)
{
	size_t n_bytes = excerpt_side_bytes(watcher, region);
	if (!n_bytes)
		return;
	event->shown.old_excerpt = event_room(event, n_bytes);
	event->shown.new_excerpt = event_room(event, n_bytes);
	excerpt_set(&engine->pass.excerpt, event);
}

static size_t room_for(const struct memwatch *watcher, const struct region *region)
{
	const struct layout *layout = region_layout(&watcher->engine->regions, region);
	size_t format = layout->format ? strlen(layout->format) : 0;
	size_t shape = layout->n_dims * sizeof *layout->shape;
	size_t patch = watcher->patches ? 2 * (watcher->engine->diff.undo_bytes + 8) : 0;
	size_t excerpt = 2 * (excerpt_side_bytes(watcher, region) + 8);
	return patch + excerpt + 2 * head_bytes(watcher, region) + shape + strlen(region_name(region)) + format + 128;
}

/* That which noticed it: some pages are polled for want of something better. */
static const struct backend *backend_of(const struct memwatch *watcher, const struct region *region, size_t n_ranges)
{
	const struct engine *engine = watcher->engine;
	if (region->backend)
		return engine->backends[region->backend - 1];
	if (n_ranges && attribute_is_foreign(engine, region))
		return engine->fallback;
	const struct backend *backend =
		n_ranges ? engine_backend_of(engine, region->start + engine->diff.ranges[0].offset) : NULL;
	return backend ? backend : watcher->backend;
}

static struct event *event_begin(const struct memwatch *watcher, const struct region *region, size_t n_ranges)
{
	struct event *event = event_new(n_ranges, room_for(watcher, region));
	if (!event)
		return NULL;
	struct memwatch_event *shown = &event->shown;
	shown->region_id = region_id(region);
	shown->name = event_text(event, region_name(region));
	shown->size_bytes = shown->old_bytes = shown->new_bytes = region->size_bytes;
	shown->values = region->values;
	shown->backend = backend_of(watcher, region, n_ranges)->name;
	fill_layout(event, region_layout(&watcher->engine->regions, region));
	return event;
}

void emit_drop(struct memwatch *watcher, struct region *region, enum memwatch_drop reason)
{
	if (region_meta(region))
		region->meta->dropped++;
	else /* no room to count in: then the watcher's account alone has it */
		region->detected--;
	watcher->ledger.dropped++;
	watcher->dropped_by[reason]++;
}

/* --- a region in a pass --- */

static void keep_version(struct engine *engine, struct memwatch *watcher, struct region *region)
{
	if (region->values == MEMWATCH_VALUES_FULL && !is_hashed(region))
		history_add(&watcher->history, region, &engine->diff);
}

static void emit_change(struct engine *engine, struct memwatch *watcher, struct region *region, uint64_t old_hash,
			const struct author *author)
{
	size_t n_ranges = is_limited(region) ? MEMWATCH_CHANGES_MAX : engine->diff.n_ranges;
	find_excerpt(engine, watcher, region);
	bool has_meta = region_meta(region) != NULL;
	struct event *event = has_meta ? event_begin(watcher, region, n_ranges) : NULL;
	if (event && watcher->patches && region->values == MEMWATCH_VALUES_FULL)
		fill_patch(&engine->diff, region, event);
	if (has_meta)
		keep_version(engine, watcher, region);
	if (!event) {
		emit_drop(watcher, region, MEMWATCH_DROP_NO_MEMORY);
		return;
	}
	struct memwatch_event *shown = &event->shown;
	fill_values(engine, watcher, region, event);
	fill_changes(&engine->diff, region, event);
	fill_excerpt(engine, watcher, region, event);
	if (region->values == MEMWATCH_VALUES_HASH) {
		shown->old_hash = old_hash;
		shown->new_hash = is_hashed(region) ? 0
						    : siphash(&watcher->hash_key, region->shadow, region->size_bytes);
	}
	shown->merged = author->merged;
	attribute_event(engine, watcher, region, author, event);
	if (!held_put(engine, region, event))
		deliver_event(watcher, region, event);
}

/* NULL without memory. */
static struct event *ranges_alone(const struct diff *diff, const struct region *region)
{
	struct event *event = event_new(MEMWATCH_CHANGES_MAX, 0);
	if (event)
		fill_changes(diff, region, event);
	return event;
}

static void emit_filtered(struct engine *engine, struct memwatch *watcher, struct region *region)
{
	keep_version(engine, watcher, region);
	if (held_is(region))
		held_pass_by(region, is_inline(watcher, region) ? NULL : ranges_alone(&engine->diff, region));
	region->meta->filtered++;
	watcher->ledger.filtered++;
}

static void make_room(void *arg, size_t n_bytes)
{
	history_make_room(arg, n_bytes);
}

/* Before the diff: keeps what the event will need of the old value. */
static bool diff_begin(struct engine *engine, struct memwatch *watcher, const struct region *region,
		       uint64_t *ret_old_hash, size_t *ret_head)
{
	size_t head = is_hashed(region) ? 0 : head_bytes(watcher, region);
	*ret_head = head;
	if (guard_holds(region))
		guard_keep(engine, region);
	diff_reset(&engine->diff, undo_max(watcher, region));
	engine->diff.make_room = make_room;
	engine->diff.make_room_arg = &watcher->history;
	if (!head_reserve(engine, head))
		return false;
	if (head)
		memcpy(engine->pass.head, region->shadow, head);
	*ret_old_hash = region->values == MEMWATCH_VALUES_HASH && !is_hashed(region)
				? siphash(&watcher->hash_key, region->shadow, region->size_bytes)
				: 0;
	return true;
}

/* At the end: of a value that is hidden nothing stays where the next one is compared. */
static void diff_end(struct engine *engine, const struct region *region, size_t head)
{
	if (region->values == MEMWATCH_VALUES_FULL)
		return;
	if (head)
		explicit_bzero(engine->pass.head, head);
	diff_erase(&engine->diff);
}

/* What changed lately is looked at more often. */
static void tell_turns(struct engine *engine, const struct region *region)
{
	const struct backend *poll = engine->fallback;
	const struct memwatch_range *range = engine->diff.ranges;
	if (!atomic_load(&poll->pages->n_pages))
		return;
	for (uint32_t i = 0; i < engine->diff.n_ranges; i++, range++)
		poll->turns->changed(region->start + range->offset, region->start + range->offset + range->size_bytes,
				     time_monotonic_ns());
}

/* After it: what becomes of the detection. */
static void judge(struct engine *engine, struct memwatch *watcher, struct region *region, uint64_t old_hash,
		  const struct author *author)
{
	tell_turns(engine, region);
	if (!engine->diff.n_ranges) {
		region->unchanged++;
		watcher->ledger.unchanged++;
	} else if (!when_holds(region_layout(&engine->regions, region)->number, region, &engine->diff)) {
		emit_filtered(engine, watcher, region);
	} else {
		emit_change(engine, watcher, region, old_hash, author);
	}
}

void emit_value(struct engine *engine, struct region *region, const void *value, const struct author *author)
{
	struct memwatch *watcher = engine->watchers[region->watcher];
	uint64_t old_hash;
	size_t head;
	region->detected++;
	watcher->ledger.detected++;
	if (!diff_begin(engine, watcher, region, &old_hash, &head)) {
		memcpy(region->shadow, value, region->size_bytes);
		emit_drop(watcher, region, MEMWATCH_DROP_NO_MEMORY);
		return;
	}
	diff_bytes(&engine->diff, value, region->shadow, 0, region->size_bytes);
	judge(engine, watcher, region, old_hash, author);
	diff_end(engine, region, head);
}

static void count(struct region *region, void *n)
{
	(void)region;
	++*(unsigned *)n;
}

/*
 * A page of the region's own that was opened again since it was collected is armed once more before it is read: whoever
 * writes next leaves a note. Not what begins in the middle of a page, where neighbours would pay for it; nor what
 * another region has a part of, which may have been read already; nor a large region, which would take a system call
 * for each piece.
 */
static void arm_again(struct engine *engine, const struct region *region)
{
	const struct backend *backend = engine_backend_of(engine, region->start);
	const struct span_list *written = &engine->pass.written;
	struct span pages = span_of(region->start, region->size_bytes), run;
	unsigned n_regions = 0;
	if (ring_head(&engine->ring) == engine->who.n_closed || !backend || !backend->peek ||
	    region->start != pages.start || region->size_bytes > AGAIN_BYTES)
		return;
	region_overlapping(&engine->regions, pages.start, pages.end, count, &n_regions);
	if (n_regions > 1)
		return;
	for (size_t i = span_list_after(written, pages.start); i < written->n && written->spans[i].start < pages.end;
	     i++) {
		uint64_t end = min_u64(written->spans[i].end, pages.end);
		uint64_t at = max_u64(written->spans[i].start, pages.start);
		for (; page_set_next(backend->pages, at, end, &run); at = run.end) {
			engine->pass.peeked.n = 0;
			backend->collect(run, &engine->pass.peeked);
		}
	}
}

/* Compares what was written of a region, and tells what came of it. */
static void detect(struct engine *engine, struct memwatch *watcher, struct region *region, bool was_written,
		   uint64_t old_hash)
{
	arm_again(engine, region);
	int error = gather_diff(&engine->gather, &engine->diff, region, &engine->pass.written, &engine->pass.polled);
	engine->pass.n_read = ring_head(&engine->ring);
	who_read(&engine->who, span_of(region->start, region->size_bytes), engine->pass.n_read);
	if (!error && !was_written && !engine->diff.n_ranges)
		return; /* polled, and nothing new: not a detection */
	region->detected++;
	watcher->ledger.detected++;
	bool refused = error && error != -EFAULT; /* the kernel does not read for us: the next pass tries again */
	engine->pass.touch_failed |= refused;
	if (refused && !engine->diff.n_ranges) {
		emit_drop(watcher, region, MEMWATCH_DROP_UNREADABLE);
	} else if (error == -EFAULT) {
		emit_drop(watcher, region, MEMWATCH_DROP_VANISHED);
		emit_lost(engine, region);
	} else { /* of what was refused, too, that which was read before */
		uint64_t cpu_ns = was_written ? 0 : time_cpu_ns(); /* what is polled has a budget */
		judge(engine, watcher, region, old_hash, &(struct author){ .by_notes = true });
		if (guard_holds(region))
			guard_settle(engine, region);
		engine->pass.tell_ns += was_written ? 0 : time_cpu_ns() - cpu_ns;
	}
}

void emit_region(struct engine *engine, struct region *region)
{
	struct memwatch *watcher = engine->watchers[region->watcher];
	bool was_written = region->flags & REGION_WRITTEN;
	uint64_t old_hash;
	size_t head;
	region->flags &= (uint8_t) ~(REGION_PENDING | REGION_WRITTEN);
	if (region->point && !guard_holds(region))
		return; /* what has a watchpoint is told by precise.c, write by write */
	if (!diff_begin(engine, watcher, region, &old_hash, &head)) {
		engine->pass.touch_failed = true; /* no memory: the next pass tries again */
		return;
	}
	detect(engine, watcher, region, was_written, old_hash);
	diff_end(engine, region, head);
}

void emit_lost(struct engine *engine, struct region *region)
{
	struct memwatch *watcher = engine->watchers[region->watcher];
	struct event *event = region_meta(region) ? event_begin(watcher, region, 0) : NULL;
	held_release(engine, region);
	guard_remove(engine, region);
	region_erase(&engine->regions, region);
	history_forget(&watcher->history, region);
	region->flags |= REGION_LOST;
	region->detected++;
	watcher->ledger.detected++;
	if (!event) {
		emit_drop(watcher, region, MEMWATCH_DROP_NO_MEMORY);
		return;
	}
	event->shown.kind = MEMWATCH_EVENT_LOST;
	event->shown.time_ns = event->shown.detected_ns = time_realtime_ns();
	event->shown.where.reason = MEMWATCH_REASON_UNKNOWN;
	deliver_event(watcher, region, event);
}
