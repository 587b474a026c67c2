/*
 * pump.c -- waits for events and wakes the feeds.
 *
 * DESIGN. One thread of ours, "memwatch-pump". While no client waits it sleeps until a connection's deadline; while
 * some do, it waits for events until the next heartbeat. Whoever has work for it, or closes, ends either sleep: a nudge
 * is kept until it is taken, so that none is lost between two sleeps. Wake-ups for events are PUMP_PAUSE_MS apart at
 * least: at a high rate of events each client then takes many in one go. It reads nothing but seqs, and owns nothing.
 */
#include "pump.h"

#include "feed.h"

#include <errno.h>
#include <time.h>

enum { PUMP_WAIT_MAX_MS = 60000, PUMP_PAUSE_MS = 20 };

void pump_init(struct pump *pump, memwatch *watcher)
{
	pthread_condattr_t attributes;

	memset(pump, 0, sizeof *pump);
	pump->watcher = watcher;
	pump->watcher_up = 1;
	pthread_mutex_init(&pump->mutex, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&pump->wake, &attributes);
	pthread_condattr_destroy(&attributes);
}

void pump_fini(struct pump *pump)
{
	pthread_cond_destroy(&pump->wake);
	pthread_mutex_destroy(&pump->mutex);
}

/* Ends its sleep, be it here or in the watcher. */
static void rouse(struct pump *pump)
{
	pthread_cond_signal(&pump->wake);
	memwatch_events_wake(pump->watcher, &pump->woken);
}

void pump_nudge(struct pump *pump)
{
	pthread_mutex_lock(&pump->mutex);
	if (!pump->nudged) {
		pump->nudged = 1;
		rouse(pump);
	}
	pthread_mutex_unlock(&pump->mutex);
}

/* Sleeps until the deadline, or until nudged unless `pausing`. Returns 1 if the pump is to stop. */
static int sleep_until(struct pump *pump, int64_t deadline_ms, int pausing)
{
	struct timespec deadline = { .tv_sec = deadline_ms / 1000, .tv_nsec = deadline_ms % 1000 * 1000000 };
	int error = 0, stopping;

	pthread_mutex_lock(&pump->mutex);
	while (error == 0 && !pump->stopping && (pausing || !pump->nudged)) {
		if (deadline_ms == INT64_MAX)
			error = pthread_cond_wait(&pump->wake, &pump->mutex);
		else
			error = pthread_cond_timedwait(&pump->wake, &pump->mutex, &deadline);
	}
	stopping = pump->stopping;
	pthread_mutex_unlock(&pump->mutex);
	return stopping;
}

/* Takes the nudge; says whether there was one. */
static int take_nudge(struct pump *pump)
{
	int nudged;

	pthread_mutex_lock(&pump->mutex);
	nudged = pump->nudged;
	pump->nudged = 0;
	pthread_mutex_unlock(&pump->mutex);
	return nudged;
}

static uint64_t newest_seq(struct memwatch_exporter *exporter)
{
	const struct memwatch_event *none[1];
	struct memwatch_cursor cursor = { 0 };

	memwatch_events_read(exporter->watcher, 0, none, 0, &cursor);
	return cursor.newest;
}

/* Waits for an event after `seen`, or the deadline. Returns 1 if the pump is to stop. */
static int wait_for_events(struct memwatch_exporter *exporter, uint64_t seen, int64_t deadline_ms)
{
	struct pump *pump = &exporter->pump;
	int64_t wait_ms = deadline_ms - server_now_ms();
	int result;

	wait_ms = wait_ms < 0 ? 0 : wait_ms;
	wait_ms = wait_ms > PUMP_WAIT_MAX_MS ? PUMP_WAIT_MAX_MS : wait_ms;
	result = memwatch_events_wait_or_wake(exporter->watcher, seen, (int)wait_ms, &pump->woken);
	if (result < 0)
		__atomic_store_n(&pump->watcher_up, 0, __ATOMIC_RELAXED);
	return sleep_until(pump, 0, 0);
}

static void *run(void *arg)
{
	struct memwatch_exporter *exporter = arg;
	struct pump *pump = &exporter->pump;
	int64_t feeds_ms = 0, connections_ms = 0, woken_ms = 0, now_ms;
	unsigned n_suspended = 0;
	uint64_t seen = 0, newest;
	int stopping = 0, nudged;

	pthread_setname_np(pthread_self(), "memwatch-pump");
	while (!stopping && !sleep_until(pump, woken_ms + PUMP_PAUSE_MS, 1)) {
		nudged = take_nudge(pump);
		now_ms = server_now_ms();
		newest = pump->watcher_up ? newest_seq(exporter) : seen;
		if (newest != seen || nudged || now_ms >= feeds_ms) {
			if (newest != seen)
				woken_ms = now_ms;
			seen = newest;
			feeds_ms = feeds_wake(&exporter->feeds, seen, now_ms, &n_suspended);
		}
		if (nudged || now_ms >= connections_ms)
			connections_ms = connections_reap(&exporter->connections, now_ms);
		now_ms = feeds_ms < connections_ms ? feeds_ms : connections_ms;
		if (n_suspended == 0 || !pump->watcher_up)
			stopping = sleep_until(pump, now_ms, 0);
		else
			stopping = wait_for_events(exporter, seen, now_ms);
	}
	return NULL;
}

int pump_start(struct memwatch_exporter *exporter)
{
	int error = pthread_create(&exporter->pump.thread, NULL, run, exporter);

	exporter->pump.running = error == 0;
	return -error;
}

void pump_stop(struct pump *pump)
{
	if (!pump->running)
		return;
	pthread_mutex_lock(&pump->mutex);
	pump->stopping = 1;
	rouse(pump);
	pthread_mutex_unlock(&pump->mutex);
	pthread_join(pump->thread, NULL);
	pump->running = 0;
}
