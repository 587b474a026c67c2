/*
 * deliver.h -- the last step of every event, whoever made it.
 */
#ifndef DELIVER_H
#define DELIVER_H

#include "engine.h"

/* Gives an event to the sinks, which takes it over; the region has a meta. Under the engine's lock. */
void deliver_event(struct memwatch *watcher, struct region *region, struct event *event);

#endif
