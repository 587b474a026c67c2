/*
 * pump.h -- the exporter's own thread.
 */
#ifndef PUMP_H
#define PUMP_H

#include "nudge.h"

#include "feeds.h"
#include "http/connections.h"

#include <stdatomic.h>

struct pump {
	pthread_t thread;
	bool running; /* the thread exists; the opening and closing thread's */
	struct nudge nudge;
	_Atomic bool watcher_up; /* false once the watcher closes; written by the pump, read by the HTTP thread */
	/* What it looks after: the exporter's. */
	memwatch *watcher;
	struct feeds *feeds;
	struct connections *connections;
};

void pump_init(struct pump *pump, memwatch *watcher, struct feeds *feeds, struct connections *connections);
void pump_fini(struct pump *pump);

/* Starts the thread. 0 or -errno. */
int pump_start(struct pump *pump);

/* Stops and joins it, at once. */
void pump_stop(struct pump *pump);

#endif
