/*
 * excerpt.c -- DESIGN: see excerpt.h. A diff keeps what the first blocks held that differ. An item's old bytes are
 * those, and the shadow's where its blocks did not differ. Runs on the worker under the engine's lock.
 *
 * Loss: items behind the first block that was not kept are left out, and all that is more than the bounds.
 */
#include "excerpt.h"

#include <string.h>

size_t excerpt_room(uint64_t item_bytes)
{
	if (item_bytes > EXCERPT_ITEM_MAX)
		return 0;
	return EXCERPT_RUNS * sizeof(struct undo_run) + (size_t)max_u64(item_bytes, EXCERPT_BYTES);
}

static void excerpt_reset(struct excerpt *excerpt)
{
	excerpt->n_bytes = excerpt->n_item_bytes = 0;
	excerpt->n_runs = 0;
}

/* False: there is no more room. */
static bool add_item(struct excerpt *excerpt, uint64_t offset, const uint8_t *old, const uint8_t *now, size_t n)
{
	bool goes_on = excerpt->n_runs && excerpt->run.offset + excerpt->run.size_bytes == offset;
	bool is_full = excerpt->n_runs && excerpt->n_item_bytes + n > EXCERPT_BYTES;
	if (is_full || (!goes_on && excerpt->n_runs == EXCERPT_RUNS))
		return false;
	if (!goes_on) {
		excerpt->run = (struct undo_run){ offset, 0 };
		excerpt->open_run = excerpt->n_bytes;
		excerpt->n_bytes += sizeof excerpt->run;
		excerpt->n_runs++;
	}
	memcpy(excerpt->old + excerpt->n_bytes, old, n);
	memcpy(excerpt->now + excerpt->n_bytes, now, n);
	excerpt->n_bytes += n;
	excerpt->n_item_bytes += n;
	excerpt->run.size_bytes += n;
	memcpy(excerpt->old + excerpt->open_run, &excerpt->run, sizeof excerpt->run);
	memcpy(excerpt->now + excerpt->open_run, &excerpt->run, sizeof excerpt->run);
	return true;
}

void excerpt_find(struct excerpt *excerpt, const struct diff *diff, const uint8_t *shadow, uint64_t size_bytes,
		  uint64_t item_bytes, uint64_t from)
{
	uint8_t old[EXCERPT_ITEM_MAX];
	uint64_t next = from / item_bytes;
	excerpt_reset(excerpt);
	if (item_bytes > EXCERPT_ITEM_MAX)
		return;
	for (uint32_t i = 0; i < diff->n_kept; i++) {
		uint64_t begin = diff->kept[i].offset, stop = begin + diff->kept[i].size_bytes;
		for (uint64_t item = max_u64(begin / item_bytes, next); item * item_bytes < stop; item++) {
			uint64_t offset = item * item_bytes, end = offset + item_bytes;
			next = item + 1;
			if (end > size_bytes || end > diff->lost_from)
				return;
			diff_old(diff, shadow, offset, (size_t)item_bytes, old);
			if (memcmp(old, shadow + offset, item_bytes) != 0 &&
			    !add_item(excerpt, offset, old, shadow + offset, (size_t)item_bytes))
				return;
		}
	}
}

void excerpt_set(const struct excerpt *excerpt, struct event *event)
{
	struct memwatch_event *shown = &event->shown;
	if (!shown->old_excerpt || !shown->new_excerpt)
		return;
	memcpy((uint8_t *)(uintptr_t)shown->old_excerpt, excerpt->old, excerpt->n_bytes);
	memcpy((uint8_t *)(uintptr_t)shown->new_excerpt, excerpt->now, excerpt->n_bytes);
	shown->excerpt_bytes = excerpt->n_bytes;
}

/* --- merged events --- */

/* Goes through the items of an event's excerpt. */
struct walk {
	const struct memwatch_event *event;
	uint64_t at;         /* of the run, in the excerpt */
	uint64_t in_run;     /* of the item, in the run */
	struct undo_run run; /* of no bytes: there is no item any more */
};

static void walk_to_run(struct walk *walk)
{
	walk->in_run = 0;
	walk->run = (struct undo_run){ UINT64_MAX, 0 };
	if (walk->at < walk->event->excerpt_bytes)
		memcpy(&walk->run, walk->event->old_excerpt + walk->at, sizeof walk->run);
}

static void walk_next(struct walk *walk, uint64_t item_bytes)
{
	walk->in_run += item_bytes;
	if (walk->in_run < walk->run.size_bytes)
		return;
	walk->at += sizeof walk->run + walk->run.size_bytes;
	walk_to_run(walk);
}

static bool is_listed(const struct memwatch_event *event, uint64_t offset, uint64_t n)
{
	for (uint32_t i = 0; i < event->n_changes; i++)
		if (event->changes[i].offset < offset + n &&
		    offset < event->changes[i].offset + event->changes[i].size_bytes)
			return true;
	return false;
}

void excerpt_merge(struct excerpt *excerpt, const struct memwatch_event *earlier, const struct memwatch_event *later,
		   const uint8_t *shadow)
{
	uint64_t item_bytes = max_u64(later->item_bytes, 1);
	struct walk first = { .event = earlier }, second = { .event = later };
	walk_to_run(&first);
	walk_to_run(&second);
	excerpt_reset(excerpt);
	while (first.run.size_bytes || second.run.size_bytes) {
		bool is_first = first.run.offset + first.in_run <= second.run.offset + second.in_run;
		struct walk *walk = is_first ? &first : &second;
		uint64_t offset = walk->run.offset + walk->in_run;
		const uint8_t *old = walk->event->old_excerpt + walk->at + sizeof walk->run + walk->in_run;
		bool is_known = is_first || !is_listed(earlier, offset, item_bytes);
		if (is_known && !add_item(excerpt, offset, old, shadow + offset, (size_t)item_bytes))
			return;
		walk_next(walk, item_bytes);
	}
}
