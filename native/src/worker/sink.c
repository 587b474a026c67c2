/*
 * sink.c -- cursors on a log, with their accounts, and the thread that calls back. Any thread; what a sink counts is guarded by the log's
 * mutex. A sink may outlive its watcher: it keeps the log. What a slow sink misses is counted and told to it.
 */
#define _GNU_SOURCE
#include "sink.h"

#include <memwatch/reader.h>
#include <stdio.h>
#include <string.h>

enum { BATCH = 64 };

int sink_open(struct log *log, const char *name, struct memwatch_sink **ret_sink)
{
	struct memwatch_sink *sink = mem_alloc(sizeof *sink);
	if (!sink)
		return error_set(-ENOMEM, "no memory for a sink");
	snprintf(sink->name, sizeof sink->name, "%s", name);
	sink->log = log;
	pthread_mutex_lock(&log->mutex);
	log->n_refs++;
	sink->since = log->newest;
	sink->next = log->sinks;
	log->sinks = sink;
	pthread_mutex_unlock(&log->mutex);
	*ret_sink = sink;
	return 0;
}

void sink_close(struct memwatch_sink *sink)
{
	struct log *log = sink->log;
	pthread_mutex_lock(&log->mutex);
	struct memwatch_sink **link = &log->sinks;
	while (*link && *link != sink)
		link = &(*link)->next;
	if (*link)
		*link = sink->next;
	pthread_mutex_unlock(&log->mutex);
	mem_free(sink);
	log_unref(log);
}

int memwatch_sink_read(struct memwatch_sink *sink, const struct memwatch_event **events, size_t n, int timeout_ms)
{
	struct log *log = sink->log;
	struct memwatch_cursor cursor;
	pthread_mutex_lock(&log->mutex);
	int result = log_wait_locked(log, &sink->since, timeout_ms, &sink->woken);
	if (result > 0) {
		result = log_read_locked(log, sink->since, events, n, &cursor);
		sink->since = cursor.next;
		sink->missed += cursor.missed;
		sink->received += (uint64_t)result;
	}
	pthread_mutex_unlock(&log->mutex);
	return result;
}

void memwatch_sink_seek(struct memwatch_sink *sink, uint64_t since)
{
	pthread_mutex_lock(&sink->log->mutex);
	sink->since = since;
	pthread_mutex_unlock(&sink->log->mutex);
}

void memwatch_sink_wake(struct memwatch_sink *sink)
{
	log_wake(sink->log, &sink->woken);
}

void memwatch_sink_report(struct memwatch_sink *sink, uint64_t duration_ns, int failed)
{
	pthread_mutex_lock(&sink->log->mutex);
	histogram_add(&sink->duration, duration_ns);
	sink->failed += failed != 0;
	pthread_mutex_unlock(&sink->log->mutex);
}

int sink_list(struct log *log, struct memwatch_sink_info *infos, size_t n)
{
	size_t count = 0;
	pthread_mutex_lock(&log->mutex);
	for (const struct memwatch_sink *sink = log->sinks; sink; sink = sink->next, count++) {
		if (count >= n)
			continue;
		infos[count] =
			(struct memwatch_sink_info){ .received = sink->received,
						     .missed = sink->missed,
						     .failed = sink->failed,
						     .lag = log->newest > sink->since ? log->newest - sink->since : 0,
						     .duration = sink->duration };
		memcpy(infos[count].name, sink->name, sizeof sink->name);
	}
	pthread_mutex_unlock(&log->mutex);
	return (int)count;
}

/* --- the dispatcher of memwatch_callback_set --- */

static void *dispatch(void *arg)
{
	struct dispatcher *dispatcher = arg;
	const struct memwatch_event *events[BATCH];
	for (;;) {
		int n = memwatch_sink_read(dispatcher->sink, events, BATCH,
					   atomic_load(&dispatcher->stopping) ? 0 : -1);
		if (n < 0 || (n == 0 && atomic_load(&dispatcher->stopping)))
			return NULL;
		for (int i = 0; i < n; i++) {
			uint64_t start_ns = time_monotonic_ns();
			if (dispatcher->callback)
				dispatcher->callback(events[i], dispatcher->arg);
			memwatch_sink_report(dispatcher->sink, time_monotonic_ns() - start_ns, 0);
			memwatch_event_unref(events[i]);
		}
	}
}

int dispatcher_start(struct dispatcher *dispatcher, struct log *log,
		     void (*callback)(const struct memwatch_event *, void *), void *arg)
{
	*dispatcher = (struct dispatcher){ .callback = callback, .arg = arg };
	int error = sink_open(log, "callback", &dispatcher->sink);
	if (error)
		return error;
	error = thread_start(&dispatcher->thread, "memwatch-call", dispatch, dispatcher);
	if (error) {
		sink_close(dispatcher->sink);
		dispatcher->sink = NULL;
	}
	return error;
}

void dispatcher_stop(struct dispatcher *dispatcher, bool drain)
{
	if (!dispatcher->sink)
		return;
	if (!drain) {
		pthread_mutex_lock(&dispatcher->sink->log->mutex);
		dispatcher->sink->since = dispatcher->sink->log->newest;
		pthread_mutex_unlock(&dispatcher->sink->log->mutex);
	}
	atomic_store(&dispatcher->stopping, true);
	memwatch_sink_wake(dispatcher->sink);
	pthread_join(dispatcher->thread, NULL);
	sink_close(dispatcher->sink);
	dispatcher->sink = NULL;
}
