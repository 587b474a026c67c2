/*
 * emit.h -- from a region's written pages to its event. All under the engine's lock.
 */
#ifndef EMIT_H
#define EMIT_H

#include "attribute.h"
#include "engine.h"

/*
 * Diffs one region over the written spans and makes its event. On the worker, or in place of it when a region is
 * removed.
 */
void emit_region(struct engine *engine, struct region *region);
/* The region, which is small and has a full shadow, took a value: a detection with this author. */
void emit_value(struct engine *engine, struct region *region, const void *value, const struct author *author);
/* Lets the event go that max_rate holds back, if there is one. */
void emit_held(struct engine *engine, struct region *region);
/* Lets held events go whose time has come, or all of them. Returns when the next is due, 0: none waits. */
uint64_t emit_due(struct engine *engine, bool all);
/* The region's memory is gone: its last event, and its end. */
void emit_lost(struct engine *engine, struct region *region);
/* Gives an event to the sinks, which takes it over; the region has a meta. */
void emit_append(struct memwatch *watcher, struct region *region, struct event *event);
/* A detection is lost. */
void emit_drop(struct memwatch *watcher, struct region *region, enum memwatch_drop reason);

#endif
