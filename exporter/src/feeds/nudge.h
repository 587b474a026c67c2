/*
 * nudge.h -- how the pump sleeps, and how others end its sleep.
 */
#ifndef NUDGE_H
#define NUDGE_H

#include <memwatch/reader.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct nudge {
	memwatch *watcher;
	pthread_mutex_t mutex; /* guards `given` and `stopping`: written by any thread, read by the pump */
	pthread_cond_t wake;
	bool given; /* somebody has work for the pump */
	bool stopping;
	int woken; /* memwatch_events_wake's: only the library touches it */
};

void nudge_init(struct nudge *nudge, memwatch *watcher);
void nudge_fini(struct nudge *nudge);

/* Any thread: there is a new deadline, or a new client, to look at. Kept until it is taken. */
void nudge_give(struct nudge *nudge);

/* Any thread: the pump is to end, at once. */
void nudge_stop(struct nudge *nudge);

/* Pump: takes the nudge; was there one? */
bool nudge_take(struct nudge *nudge);

/* Pump: sleeps until the deadline, or until nudged unless `pausing`. Is it to end? */
bool nudge_sleep_until(struct nudge *nudge, int64_t deadline_ms, bool pausing);

#endif
