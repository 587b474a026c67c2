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
/* The region's memory is gone: its last event, and its end. */
void emit_lost(struct engine *engine, struct region *region);
/* A detection is lost. */
void emit_drop(struct memwatch *watcher, struct region *region, enum memwatch_drop reason);

#endif
