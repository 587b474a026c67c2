/*
 * edge.h -- a region's first and last page, which it may share with neighbours. Under the engine's lock.
 */
#ifndef EDGE_H
#define EDGE_H

#include "worker/engine.h"

/* The region came into the treap or left it: the source of notes learns which bytes neighbours may write. */
void edge_came(struct engine *engine, const struct region *region);
void edge_went(struct engine *engine, const struct region *region);

#endif
