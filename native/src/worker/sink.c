/*
 * sink.c -- cursors on a log, with their accounts, and the thread that calls back. Any thread; what a sink counts is
 * guarded by the log's mutex. A sink may outlive its watcher: it keeps the log. What a slow sink misses is counted and
 * told to it.
 */
#define _GNU_SOURCE
#include "sink.h"

#include "../base/structs.h"

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
	sink->since = log->shown;
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

void memwatch_sink_status_set_sized(struct memwatch_sink *sink, const struct memwatch_sink_status *given,
				    size_t struct_bytes)
{
	struct memwatch_sink_status status = { 0 };
	if (!sink || !given)
		return;
	/* It is shown to people: what we do not know of it cannot be. */
	memwatch_struct_write(&status, sizeof status, given, struct_bytes);
	pthread_mutex_lock(&sink->log->mutex);
	sink->has_status = true;
	sink->status = status;
	pthread_mutex_unlock(&sink->log->mutex);
}

static void fill_info(const struct memwatch_sink *sink, struct memwatch_sink_info *ret_info)
{
	uint64_t newest = sink->log->shown;
	*ret_info = (struct memwatch_sink_info){ .received = sink->received,
						 .missed = sink->missed,
						 .failed = sink->failed,
						 .lag = newest > sink->since ? newest - sink->since : 0,
						 .duration = sink->duration,
						 .has_status = sink->has_status,
						 .status = sink->status };
	memcpy(ret_info->name, sink->name, sizeof sink->name);
}

int sink_list(struct log *log, struct memwatch_sink_info *infos, size_t n, size_t struct_bytes)
{
	struct memwatch_sink_info info;
	size_t count = 0;
	pthread_mutex_lock(&log->mutex);
	for (const struct memwatch_sink *sink = log->sinks; sink; sink = sink->next, count++) {
		if (count >= n)
			continue;
		fill_info(sink, &info);
		memwatch_struct_write(structs_at(infos, count, struct_bytes), struct_bytes, &info, sizeof info);
	}
	pthread_mutex_unlock(&log->mutex);
	return (int)count;
}

/* --- the dispatcher of memwatch_callback_set --- */

static void call_back(const struct dispatcher *dispatcher, const struct memwatch_event *event)
{
	uint64_t start_ns = time_monotonic_ns();
	dispatcher->callback(event, dispatcher->arg);
	memwatch_sink_report(dispatcher->sink, time_monotonic_ns() - start_ns, 0);
	memwatch_event_unref(event);
}

static void *dispatch(void *arg)
{
	struct dispatcher *dispatcher = arg;
	const struct memwatch_event *events[BATCH];
	while (atomic_load(&dispatcher->state) == DISPATCHER_WAITS)
		futex_wait(&dispatcher->state, DISPATCHER_WAITS, 0);
	for (;;) {
		bool stopping = atomic_load(&dispatcher->state) == DISPATCHER_STOPS;
		int n = memwatch_sink_read(dispatcher->sink, events, BATCH, stopping ? 0 : -1);
		if (n < 0 || (n == 0 && atomic_load(&dispatcher->state) == DISPATCHER_STOPS))
			return NULL;
		for (int i = 0; i < n; i++)
			call_back(dispatcher, events[i]);
	}
}

int dispatcher_new(struct log *log, void (*callback)(const struct memwatch_event *, void *), void *arg,
		   struct dispatcher **ret_dispatcher)
{
	struct dispatcher *dispatcher = mem_alloc(sizeof *dispatcher);
	if (!dispatcher)
		return error_set(-ENOMEM, "no memory for a callback");
	dispatcher->callback = callback;
	dispatcher->arg = arg;
	int error = sink_open(log, "callback", &dispatcher->sink);
	if (error)
		goto free_dispatcher;
	error = thread_start(&dispatcher->thread, "memwatch-call", dispatch, dispatcher);
	if (error)
		goto close_sink;
	*ret_dispatcher = dispatcher;
	return 0;

close_sink:
	sink_close(dispatcher->sink);
free_dispatcher:
	mem_free(dispatcher);
	return error;
}

static void enter_state(struct dispatcher *dispatcher, uint32_t state)
{
	atomic_store(&dispatcher->state, state);
	futex_wake(&dispatcher->state);
}

void dispatcher_begin(struct dispatcher *dispatcher, uint64_t since)
{
	memwatch_sink_seek(dispatcher->sink, since);
	enter_state(dispatcher, DISPATCHER_RUNS);
}

uint64_t dispatcher_stop(struct dispatcher *dispatcher, bool drain)
{
	struct memwatch_sink *sink = dispatcher->sink;
	if (!drain)
		memwatch_sink_seek(sink, log_newest(sink->log));
	enter_state(dispatcher, DISPATCHER_STOPS);
	memwatch_sink_wake(sink);
	pthread_join(dispatcher->thread, NULL);
	uint64_t since = sink->since;
	sink_close(sink);
	mem_free(dispatcher);
	return since;
}
