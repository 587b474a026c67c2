/*
 * floor.h -- keeps counters of the watcher from going down between scrapes.
 */
#ifndef FLOOR_H
#define FLOOR_H

#include <memwatch/memwatch.h>

/* A sum over what comes and goes: what it was, and what went with those that are gone. */
struct floor_sum {
	uint64_t seen, gone;
};

/* The most that was ever shown, and the counts of sinks that are closed. HTTP thread. */
struct floor {
	uint64_t coalesced, watchpoint_missed;
	struct floor_sum callback_missed, callback_failed, callback_ns, callback_buckets[MEMWATCH_LATENCY_BUCKETS + 1];
	struct floor_sum written, recorder_missed, errors;
};

/* Raises what has gone down to what was shown; `detected` stays the sum of its parts. */
void floor_raise(struct floor *shown, struct memwatch_stats *stats);

/* Adds to the sums over the sinks that are open what those that are closed had counted when they were last seen. */
void floor_sinks(struct floor *shown, struct memwatch_sink_info *callback, struct memwatch_sink_status *recorder);

#endif
