/*
 * floor.c -- DESIGN: a write under a watchpoint that has no hit for long is given up and counted as missed and as coalesced; comes its hit after
 * all, the library takes it back. To Prometheus a counter that goes down is one that began at 0 again, and its rate a spike that
 * never was. So what was shown once stays until the count has come there again.
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

	raise_to(&shown->watchpoint_missed, &stats->watchpoint_missed);
	raise_to(&shown->coalesced, &ledger->coalesced);
	ledger->detected =
		ledger->delivered + ledger->coalesced + ledger->unchanged + ledger->filtered + ledger->dropped;
}
