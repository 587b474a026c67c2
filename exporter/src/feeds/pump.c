/*
 * pump.c -- DESIGN: waits for events and wakes the feeds. One thread of ours, "memwatch-pump"; it reads nothing but
 * seqs, and owns nothing.
 *
 * While no client waits it sleeps until a connection's deadline. While some do, it waits for events until the next
 * heartbeat. Wake-ups for events are PUMP_PAUSE_MS apart at least: at a high rate of events each client then takes many
 * in one go.
 */
#include "pump.h"

#include "clock.h"

#include <memwatch/reader.h>

#include <string.h>

enum { PUMP_WAIT_MAX_MS = 60000, PUMP_PAUSE_MS = 20 };

/* What the pump knows between two rounds. */
struct round {
	uint64_t seen; /* the newest seq that it told the feeds */
	int64_t woken_ms, feeds_ms, connections_ms;
	unsigned n_suspended;
};

void pump_init(struct pump *pump, memwatch *watcher, struct feeds *feeds, struct connections *connections)
{
	memset(pump, 0, sizeof *pump);
	pump->watcher = watcher;
	pump->feeds = feeds;
	pump->connections = connections;
	pump->watcher_up = true;
	nudge_init(&pump->nudge, watcher);
}

void pump_fini(struct pump *pump)
{
	nudge_fini(&pump->nudge);
}

/* Waits for an event after `seen`, or the deadline. Is the pump to end? */
static bool wait_for_events(struct pump *pump, uint64_t seen, int64_t deadline_ms)
{
	int64_t wait_ms = deadline_ms - clock_now_ms();
	wait_ms = wait_ms < 0 ? 0 : wait_ms;
	wait_ms = wait_ms > PUMP_WAIT_MAX_MS ? PUMP_WAIT_MAX_MS : wait_ms;
	if (memwatch_events_wait_or_wake(pump->watcher, seen, (int)wait_ms, &pump->nudge.woken) < 0)
		atomic_store_explicit(&pump->watcher_up, false, memory_order_relaxed);
	return nudge_sleep_until(&pump->nudge, 0, false);
}

/* Wakes whoever has something to do now. */
static void run_round(struct pump *pump, struct round *round)
{
	bool up = atomic_load_explicit(&pump->watcher_up, memory_order_relaxed);
	bool nudged = nudge_take(&pump->nudge);
	int64_t now_ms = clock_now_ms();
	uint64_t newest = up ? feeds_ends(pump->watcher).newest : round->seen;
	if (newest != round->seen)
		round->woken_ms = now_ms;
	if (newest != round->seen || nudged || now_ms >= round->feeds_ms)
		round->feeds_ms = feeds_wake(pump->feeds, newest, now_ms, &round->n_suspended);
	round->seen = newest;
	if (nudged || now_ms >= round->connections_ms)
		round->connections_ms = connections_reap(pump->connections, now_ms);
}

static void *run(void *arg)
{
	struct pump *pump = arg;
	struct round round = { 0 };
	bool stopping = false;
	pthread_setname_np(pthread_self(), "memwatch-pump");
	memwatch_thread_own();
	while (!stopping && !nudge_sleep_until(&pump->nudge, round.woken_ms + PUMP_PAUSE_MS, true)) {
		run_round(pump, &round);
		int64_t next_ms = round.feeds_ms < round.connections_ms ? round.feeds_ms : round.connections_ms;
		if (round.n_suspended == 0 || !atomic_load_explicit(&pump->watcher_up, memory_order_relaxed))
			stopping = nudge_sleep_until(&pump->nudge, next_ms, false);
		else
			stopping = wait_for_events(pump, round.seen, next_ms);
	}
	return NULL;
}

int pump_start(struct pump *pump)
{
	int error = pthread_create(&pump->thread, NULL, run, pump);
	pump->running = !error;
	return -error;
}

void pump_stop(struct pump *pump)
{
	if (!pump->running)
		return;
	nudge_stop(&pump->nudge);
	pthread_join(pump->thread, NULL);
	pump->running = false;
}
