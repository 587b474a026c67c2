/*
 * log.c -- a circle of references to immutable events. Any thread; one short mutex. Appending evicts the oldest, so
 * that memory is bounded and the worker never waits for a reader. A reader whose cursor was overtaken learns how many
 * events it missed. An event that waits for names holds back those after it; for readers they are not there. Readers
 * copy references under the mutex and do everything else outside it.
 */
#define _GNU_SOURCE
#include "log.h"

#include <string.h>
#include <time.h>

int log_new(uint64_t capacity, uint64_t budget_bytes, struct log **ret_log)
{
	pthread_condattr_t attr;
	struct log *log = mem_alloc(sizeof *log);
	if (log)
		*log = (struct log){ .generation = atomic_load(&fork_generation),
				     .capacity = capacity,
				     .budget_bytes = budget_bytes,
				     .oldest = 1,
				     .n_refs = 1,
				     .slots = mem_map(capacity * sizeof *log->slots) };
	if (!log || !log->slots) {
		mem_free(log);
		return error_set(-ENOMEM, "no memory for a log of %llu events", (unsigned long long)capacity);
	}
	pthread_mutex_init(&log->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&log->changed, &attr);
	pthread_condattr_destroy(&attr);
	*ret_log = log;
	return 0;
}

/* What of the log can be read by now. With the mutex held. */
static void show(struct log *log)
{
	uint64_t before = log->shown;
	while (log->shown < log->newest && !log->slots[(log->shown + 1) % log->capacity]->is_unnamed)
		log->shown++;
	log->unannounced |= log->shown != before;
}

/* Without names, what has none. */
static void show_all(struct log *log)
{
	for (uint64_t seq = log->shown + 1; seq <= log->newest; seq++)
		log->slots[seq % log->capacity]->is_unnamed = false;
	show(log);
}

void log_close(struct log *log)
{
	pthread_mutex_lock(&log->mutex);
	show_all(log);
	log->closing = true;
	pthread_cond_broadcast(&log->changed);
	while (log->n_inside)
		pthread_cond_wait(&log->changed, &log->mutex);
	pthread_mutex_unlock(&log->mutex);
}

static struct event *evict_oldest(struct log *log)
{
	struct event **slot = &log->slots[log->oldest % log->capacity];
	struct event *event = *slot;
	*slot = NULL;
	log->shown = max_u64(log->shown, log->oldest++);
	log->bytes -= event->size_bytes;
	return event;
}

void log_ref(struct log *log)
{
	pthread_mutex_lock(&log->mutex);
	log->n_refs++;
	pthread_mutex_unlock(&log->mutex);
}

void log_unref(struct log *log)
{
	pthread_mutex_lock(&log->mutex);
	bool last = --log->n_refs == 0;
	pthread_mutex_unlock(&log->mutex);
	if (!last)
		return;
	while (log->oldest <= log->newest)
		memwatch_event_unref(&evict_oldest(log)->shown);
	mem_unmap(log->slots, log->capacity * sizeof *log->slots);
	pthread_cond_destroy(&log->changed);
	pthread_mutex_destroy(&log->mutex);
	mem_free(log);
}

static bool full(const struct log *log, const struct event *event)
{
	uint64_t n = log->newest + 1 - log->oldest;
	return n >= log->capacity || (n && log->bytes + event->size_bytes > log->budget_bytes);
}

uint64_t log_append(struct log *log, struct event *event)
{
	pthread_mutex_lock(&log->mutex);
	while (full(log, event)) {
		memwatch_event_unref(&evict_oldest(log)->shown);
		log->n_evicted++;
	}
	uint64_t seq = event->shown.seq = ++log->newest;
	log->slots[seq % log->capacity] = event;
	log->bytes += event->size_bytes;
	show(log);
	pthread_mutex_unlock(&log->mutex);
	return seq;
}

bool log_announce(struct log *log)
{
	pthread_mutex_lock(&log->mutex);
	if (log->unannounced && log->n_inside)
		pthread_cond_broadcast(&log->changed);
	log->unannounced = false;
	bool all = log->shown == log->newest;
	pthread_mutex_unlock(&log->mutex);
	return all;
}

struct event *log_first_unnamed(struct log *log)
{
	pthread_mutex_lock(&log->mutex);
	struct event *event = log->shown < log->newest ? log->slots[(log->shown + 1) % log->capacity] : NULL;
	if (event)
		memwatch_event_ref(&event->shown);
	pthread_mutex_unlock(&log->mutex);
	return event;
}

void log_complete(struct log *log, struct event *event, void (*fill)(struct event *event, const void *arg),
		  const void *arg)
{
	pthread_mutex_lock(&log->mutex);
	if (event->is_unnamed && event->shown.seq > log->shown)
		fill(event, arg);
	event->is_unnamed = false;
	show(log);
	pthread_mutex_unlock(&log->mutex);
}

/* Waits on `changed` until the deadline (NULL: for ever). False when it has passed. The mutex is held. */
static bool wait_changed(struct log *log, const struct timespec *deadline)
{
	if (!deadline)
		return pthread_cond_wait(&log->changed, &log->mutex) == 0;
	return pthread_cond_timedwait(&log->changed, &log->mutex, deadline) != ETIMEDOUT;
}

int log_wait_locked(struct log *log, const uint64_t *since, int timeout_ms, int *woken)
{
	uint64_t deadline_ns = time_monotonic_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * NS_PER_MS;
	struct timespec deadline = { (time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S) };
	bool in_time = timeout_ms != 0;
	log->n_inside++;
	while (log->shown <= *since && !log->closing && in_time && !(woken && *woken))
		in_time = wait_changed(log, timeout_ms < 0 ? NULL : &deadline);
	if (woken)
		*woken = 0;
	log->n_inside--;
	if (log->closing)
		pthread_cond_broadcast(&log->changed); /* log_close waits for us */
	return log->shown > *since ? 1 : log->closing ? -EPIPE : 0;
}

uint64_t log_newest(struct log *log)
{
	pthread_mutex_lock(&log->mutex);
	uint64_t newest = log->newest;
	pthread_mutex_unlock(&log->mutex);
	return newest;
}

bool log_await(struct log *log, uint64_t seq, int timeout_ms)
{
	return !seq || log_wait(log, seq - 1, timeout_ms, NULL) == 1;
}

int log_wait(struct log *log, uint64_t since, int timeout_ms, int *woken)
{
	pthread_mutex_lock(&log->mutex);
	int result = log_wait_locked(log, &since, timeout_ms, woken);
	pthread_mutex_unlock(&log->mutex);
	return result;
}

void log_wake(struct log *log, int *woken)
{
	pthread_mutex_lock(&log->mutex);
	*woken = 1;
	pthread_cond_broadcast(&log->changed);
	pthread_mutex_unlock(&log->mutex);
}

int log_read_locked(struct log *log, uint64_t since, const struct memwatch_event **events, size_t n,
		    struct memwatch_cursor *ret_cursor)
{
	uint64_t first = max_u64(since + 1, log->oldest), count = 0;
	for (uint64_t seq = first; seq <= log->shown && count < n; seq++, count++) {
		events[count] = &log->slots[seq % log->capacity]->shown;
		memwatch_event_ref(events[count]);
	}
	*ret_cursor = (struct memwatch_cursor){ .oldest = log->oldest,
						.newest = log->shown,
						.missed = first - (since + 1),
						.next = count ? first + count - 1 : first - 1 };
	return (int)count;
}

int log_read(struct log *log, uint64_t since, const struct memwatch_event **events, size_t n,
	     struct memwatch_cursor *ret_cursor)
{
	struct memwatch_cursor cursor;
	pthread_mutex_lock(&log->mutex);
	int count = log_read_locked(log, since == UINT64_MAX ? log->shown : since, events, n, &cursor);
	pthread_mutex_unlock(&log->mutex);
	if (ret_cursor)
		*ret_cursor = cursor;
	return count;
}

void log_stats(struct log *log, struct memwatch_stats *stats)
{
	pthread_mutex_lock(&log->mutex);
	stats->events_oldest = log->oldest;
	stats->events_newest = log->shown;
	stats->events_kept = log->shown + 1 - log->oldest;
	stats->events_bytes = log->bytes;
	stats->events_evicted = log->n_evicted;
	pthread_mutex_unlock(&log->mutex);
}
