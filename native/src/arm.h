/*
 * arm.h -- which backend notices writes to a region's pages. Under the engine's lock.
 */
#ifndef ARM_H
#define ARM_H

#include "worker/engine.h"

/* Arms those that are not; some may be when it fails. -EBUSY when another backend holds them, or -errno. */
int arm_region(struct engine *engine, const struct memwatch *watcher, struct region *region);
/* Disarms the pages of a span that no region in the treap holds. */
void arm_drop_unwatched(struct engine *engine, struct span span);

#endif
