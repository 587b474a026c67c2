/*
 * floor.c -- DESIGN: a counter never goes down between two scrapes. HTTP thread; pure.
 *
 * The library may take a count back: a write under a watchpoint that has had no hit for long is counted as missed and
 * as coalesced, and when the hit comes after all, it is not. Prometheus would read a lower number as a restart, and
 * show a spike that never was. So what was shown once stays until the count has reached it again.
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
