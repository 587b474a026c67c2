/*
 * pump.h -- the exporter's own thread.
 */
#ifndef MEMWATCH_EXPORTER_PUMP_H
#define MEMWATCH_EXPORTER_PUMP_H

#include "server.h"

void pump_init(struct pump *pump, memwatch *watcher);
void pump_fini(struct pump *pump);

/* Starts the thread. 0 or -errno. */
int pump_start(struct memwatch_exporter *exporter);

/* Stops and joins it, at once. */
void pump_stop(struct pump *pump);

/* Any thread: there is a new deadline, or a new client, to look at. */
void pump_nudge(struct pump *pump);

#endif
