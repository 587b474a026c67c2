/*
 * floor.c -- DESIGN: a counter never goes down between two scrapes. HTTP thread; pure.
 *
 * The library may take a count back: a write under a watchpoint that has had no hit for long is counted as missed and
 * as coalesced, and when the hit comes after all, it is not. Prometheus would read a lower number as a restart, and
 * show a spike that never was. So what was shown once stays until the count has reached it again.
 *
 * A sink that is closed takes its counts with it. What it had counted at the last scrape is added from then on.
 */
#include "floor.h"

static void raise_to(uint64_t *shown, uint64_t *value)
{
	if (*value > *shown)
		*shown = *value;
	*value = *shown;
}

void floor_raise(struct floor *shown, struct memwatch_stats *stats)
{
	struct memwatch_ledger *ledger = &stats->ledger;
	raise_to(&shown->watchpoint_missed, &stats->watchpoints.missed);
	raise_to(&shown->coalesced, &ledger->coalesced);
	ledger->detected =
		ledger->delivered + ledger->coalesced + ledger->unchanged + ledger->filtered + ledger->dropped;
}

static void add_gone(struct floor_sum *sum, uint64_t *value)
{
	if (*value < sum->seen)
		sum->gone += sum->seen - *value;
	sum->seen = *value;
	*value += sum->gone;
}

void floor_sinks(struct floor *shown, struct memwatch_sink_info *callback, struct memwatch_sink_status *recorder)
{
	add_gone(&shown->callback_missed, &callback->missed);
	add_gone(&shown->callback_failed, &callback->failed);
	add_gone(&shown->callback_ns, &callback->duration.sum_ns);
	for (unsigned i = 0; i <= MEMWATCH_LATENCY_BUCKETS; i++)
		add_gone(&shown->callback_buckets[i], &callback->duration.buckets[i]);
	add_gone(&shown->written, &recorder->events_written);
	add_gone(&shown->recorder_missed, &recorder->events_missed);
	add_gone(&shown->errors, &recorder->errors);
}
