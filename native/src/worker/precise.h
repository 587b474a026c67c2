/*
 * precise.h -- regions with a hardware watchpoint: each write is a detection and, when it changed the value, an event
 * of its own. All under the engine's lock; what is not marked otherwise may run on any thread.
 */
#ifndef PRECISE_H
#define PRECISE_H

#include "engine.h"

int precise_open(struct engine *engine);
void precise_close(struct engine *engine);

/*
 * Gives a region its watchpoint; the shadow is what was last there. Those that are lent give way to it.
 * -EINVAL, -ENOSPC, -ENOTSUP with a sentence.
 */
int precise_add(struct engine *engine, struct region *region);
/* Takes it away, if there is one; what was not told by then is found by the diff of its page. */
void precise_remove(struct engine *engine, struct region *region);

/* --- on the worker --- */

/* Is there anything for a pass to do? */
bool precise_waiting(struct engine *engine);
/* Takes what has come. */
void precise_drain(struct engine *engine);
/* Tells all writes. `force`: also those that leave doubts, since somebody waits for the pass. */
void precise_pass(struct engine *engine, bool force);

void precise_stats(const struct engine *engine, struct memwatch_stats *stats);

#endif
