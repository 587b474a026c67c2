/*
 * floor_check.c -- reads lines "delivered coalesced missed" as successive states of a watcher, writes what a scrape
 * would show: "detected coalesced missed". With an argument the lines are "missed bucket written", sums over the sinks
 * that are open.
 */
#include "metrics/floor.h"

#include <inttypes.h>
#include <stdio.h>

static int check_sinks(void)
{
	struct floor shown = { 0 };
	uint64_t missed, bucket, written;
	while (scanf("%" SCNu64 " %" SCNu64 " %" SCNu64, &missed, &bucket, &written) == 3) {
		struct memwatch_sink_info callback = { .missed = missed, .duration.buckets = { [1] = bucket } };
		struct memwatch_sink_status recorder = { .events_written = written };
		floor_sinks(&shown, &callback, &recorder);
		printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", callback.missed, callback.duration.buckets[1],
		       recorder.events_written);
	}
	return 0;
}

int main(int argc, char **argv)
{
	(void)argv;
	if (argc > 1)
		return check_sinks();
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
