/*
 * sink.c -- cursors on a log, with their accounts. Any thread; what a sink counts is
 * guarded by the log's mutex. A sink may outlive its watcher: it keeps the log. What a slow sink misses is counted and
 * told to it.
 */
#define _GNU_SOURCE
#include "sink.h"

#include "../base/structs.h"

#include <memwatch/reader.h>
#include <stdio.h>
#include <string.h>

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
	struct memwatch_cursor cursor;
	if (!sink || (n && !events))
		return error_set(-EINVAL, "the sink or the list is NULL");
	struct log *log = sink->log;
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
	if (!sink)
		return;
	pthread_mutex_lock(&sink->log->mutex);
	sink->since = since;
	pthread_mutex_unlock(&sink->log->mutex);
}

void memwatch_sink_wake(struct memwatch_sink *sink)
{
	if (sink)
		log_wake(sink->log, &sink->woken);
}

void memwatch_sink_report(struct memwatch_sink *sink, uint64_t duration_ns, int failed)
{
	if (!sink)
		return;
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
