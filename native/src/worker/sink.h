/*
 * sink.h -- the readers of a log, and the thread that calls back. Any thread, any time.
 */
#ifndef SINK_H
#define SINK_H

#include "log.h"

struct memwatch_sink {
	struct log *log;
	struct memwatch_sink *next;
	char name[32];
	uint64_t since; /* its cursor */
	uint64_t received, missed, failed;
	struct memwatch_histogram duration;
	bool has_status;
	struct memwatch_sink_status status;
	int woken; /* guarded by the log's mutex */
};

int sink_open(struct log *log, const char *name, struct memwatch_sink **ret_sink);
void sink_close(struct memwatch_sink *sink);
/* Fills infos of `struct_bytes` each. */
int sink_list(struct log *log, struct memwatch_sink_info *infos, size_t n, size_t struct_bytes);

/* A thread that calls back for each event. */
enum { DISPATCHER_WAITS, DISPATCHER_RUNS, DISPATCHER_STOPS };

struct dispatcher {
	pthread_t thread;
	struct memwatch_sink *sink;
	void (*callback)(const struct memwatch_event *event, void *arg);
	void *arg;
	_Atomic uint32_t state; /* a futex; whoever sets the callback writes, the thread reads */
};

/* All that can fail: a sink and a thread that waits for dispatcher_begin. -ENOMEM, -EAGAIN with a sentence. */
int dispatcher_new(struct log *log, void (*callback)(const struct memwatch_event *, void *), void *arg,
		   struct dispatcher **ret_dispatcher);
/* From the event after `since` on. */
void dispatcher_begin(struct dispatcher *dispatcher, uint64_t since);
/*
 * Ends it; `drain`: delivers what is in the log first. Returns the last event that it had. Blocks for the call under
 * way.
 */
uint64_t dispatcher_stop(struct dispatcher *dispatcher, bool drain);

#endif
