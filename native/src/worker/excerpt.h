/*
 * excerpt.h -- the first changed items of a region whose values are too large for an event: what their bytes were and
 * are, wherever in the region they lie.
 */
#ifndef EXCERPT_H
#define EXCERPT_H

#include "../base/event.h"
#include "diff.h"

enum {
	EXCERPT_BYTES = 256,     /* of items on each side; the first may be longer, */
	EXCERPT_ITEM_MAX = 4096, /* but no longer than this */
	EXCERPT_RUNS = 16,       /* of neighbouring items */
	EXCERPT_ROOM = EXCERPT_RUNS * sizeof(struct undo_run) + EXCERPT_ITEM_MAX
};

/* As memwatch_event.old_excerpt and new_excerpt have it. */
struct excerpt {
	uint8_t old[EXCERPT_ROOM], now[EXCERPT_ROOM];
	size_t n_bytes, n_item_bytes;
	uint32_t n_runs;
	size_t open_run; /* where the last run begins */
	struct undo_run run;
};

/* The most that each side can take with items of that size. */
size_t excerpt_room(uint64_t item_bytes);

/* What the diff found in the `size_bytes` behind `shadow`, from `from` on: items that end before it are left out. */
void excerpt_find(struct excerpt *excerpt, const struct diff *diff, const uint8_t *shadow, uint64_t size_bytes,
		  uint64_t item_bytes, uint64_t from);

/* Puts it into an event that has room for it. */
void excerpt_set(const struct excerpt *excerpt, struct event *event);

/*
 * What `later` and `earlier`, events of the same region, tell together: from the value before `earlier` to that in
 * `shadow`. Items that an event changed beyond what its excerpt shows are left out.
 */
void excerpt_merge(struct excerpt *excerpt, const struct memwatch_event *earlier, const struct memwatch_event *later,
		   const uint8_t *shadow);

#endif
