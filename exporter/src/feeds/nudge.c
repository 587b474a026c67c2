/*
 * nudge.c -- DESIGN: the pump sleeps in one of two places, on a condition here or in the watcher. Whoever has work for
 * it ends both sleeps. A nudge is kept until it is taken, so that none is lost between two sleeps.
 */
#include "nudge.h"

#include <string.h>
#include <time.h>

void nudge_init(struct nudge *nudge, memwatch *watcher)
{
	memset(nudge, 0, sizeof *nudge);
	nudge->watcher = watcher;
	pthread_mutex_init(&nudge->mutex, NULL);
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&nudge->wake, &attributes);
	pthread_condattr_destroy(&attributes);
}

void nudge_fini(struct nudge *nudge)
{
	pthread_cond_destroy(&nudge->wake);
	pthread_mutex_destroy(&nudge->mutex);
}

/* Ends its sleep, be it here or in the watcher. The mutex is held. */
static void wake_pump(struct nudge *nudge)
{
	pthread_cond_signal(&nudge->wake);
	memwatch_events_wake(nudge->watcher, &nudge->woken);
}

void nudge_give(struct nudge *nudge)
{
	pthread_mutex_lock(&nudge->mutex);
	if (!nudge->given) {
		nudge->given = true;
		wake_pump(nudge);
	}
	pthread_mutex_unlock(&nudge->mutex);
}

void nudge_stop(struct nudge *nudge)
{
	pthread_mutex_lock(&nudge->mutex);
	nudge->stopping = true;
	wake_pump(nudge);
	pthread_mutex_unlock(&nudge->mutex);
}

bool nudge_take(struct nudge *nudge)
{
	pthread_mutex_lock(&nudge->mutex);
	bool given = nudge->given;
	nudge->given = false;
	pthread_mutex_unlock(&nudge->mutex);
	return given;
}

bool nudge_sleep_until(struct nudge *nudge, int64_t deadline_ms, bool pausing)
{
	struct timespec deadline = { .tv_sec = deadline_ms / 1000, .tv_nsec = deadline_ms % 1000 * 1000000 };
	int error = 0;
	pthread_mutex_lock(&nudge->mutex);
	while (!error && !nudge->stopping && (pausing || !nudge->given)) {
		if (deadline_ms == INT64_MAX)
			error = pthread_cond_wait(&nudge->wake, &nudge->mutex);
		else
			error = pthread_cond_timedwait(&nudge->wake, &nudge->mutex, &deadline);
	}
	bool stopping = nudge->stopping;
	pthread_mutex_unlock(&nudge->mutex);
	return stopping;
}
