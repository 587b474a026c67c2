/*
 * floor_check.c -- reads lines "delivered coalesced missed" as successive states of a watcher, writes what a scrape
 * would show: "detected coalesced missed".
 */
#include "metrics/floor.h"

#include <inttypes.h>
#include <stdio.h>

int main(void)
{
	struct floor shown = { 0 };
	struct memwatch_stats stats = { 0 };

	while (scanf("%" SCNu64 " %" SCNu64 " %" SCNu64, &stats.ledger.delivered, &stats.ledger.coalesced,
		     &stats.watchpoints.missed) == 3) {
		stats.ledger.detected = stats.ledger.delivered + stats.ledger.coalesced;
		floor_raise(&shown, &stats);
		printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", stats.ledger.detected, stats.ledger.coalesced,
		       stats.watchpoints.missed);
	}
	return 0;
}
