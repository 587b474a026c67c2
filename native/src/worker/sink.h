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
	int woken; /* guarded by the log's mutex */
};

int sink_open(struct log *log, const char *name, struct memwatch_sink **ret_sink);
void sink_close(struct memwatch_sink *sink);
int sink_list(struct log *log, struct memwatch_sink_info *infos, size_t n);

/* A thread that calls back for each event. */
struct dispatcher {
	pthread_t thread;
	struct memwatch_sink *sink;
	void (*callback)(const struct memwatch_event *event, void *arg);
	void *arg;
	_Atomic bool stopping;
};

int dispatcher_start(struct dispatcher *dispatcher, struct log *log,
		     void (*callback)(const struct memwatch_event *, void *), void *arg);
/* `drain`: delivers what is in the log first. */
void dispatcher_stop(struct dispatcher *dispatcher, bool drain);

#endif
