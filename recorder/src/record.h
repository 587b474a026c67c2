/*
 * record.h -- a recorder, and its thread: see record.c.
 */
#ifndef RECORDER_RECORD_H
#define RECORDER_RECORD_H

#include "run_state.h"

#include <memwatch/reader.h>

#include <pthread.h>

enum { RECORD_PENDING_MAX = 16384 };

struct memwatch_recorder {
	memwatch *watcher;
	memwatch_sink *sink;
	pid_t pid;
	pthread_t thread;
	struct memwatch_recorder_options options;
	char *path; /* absolute */
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool stopping, hurry;                 /* under the mutex */
	struct memwatch_recorder_stats stats; /* under the mutex */
	/* the thread's */
	struct run run;
	const struct memwatch_event *pending[RECORD_PENDING_MAX];
	unsigned n_pending;
	unsigned n_at_once; /* so many of them are recorded in one transaction, at most */
	unsigned percent;   /* make_room */
	bool ended;         /* the watcher closes */
};

/* Waits on `changed` until that time of CLOCK_MONOTONIC; false: it has come. The mutex is held. */
bool record_wait_until(struct memwatch_recorder *recorder, uint64_t deadline_ms);
uint64_t record_now_ms(void);

/* What the thread runs, on a recorder. */
void *record_run(void *recorder);

#endif
