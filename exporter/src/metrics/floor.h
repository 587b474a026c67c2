/*
 * floor.h -- keeps counters of the watcher from going down between scrapes.
 */
#ifndef FLOOR_H
#define FLOOR_H

#include <memwatch/memwatch.h>

/* The most that was ever shown. HTTP thread. */
struct floor {
	uint64_t coalesced, watchpoint_missed;
};

/* Raises what has gone down to what was shown; `detected` stays the sum of its parts. */
void floor_raise(struct floor *shown, struct memwatch_stats *stats);

#endif
