/*
 * guard.h -- small regions, and words of larger ones, that are lent free hardware watchpoints: their neighbours' writes
 * do not cost them their authors then. Each hit is a note like that of a fault; windows, diffs and events stay as they
 * are. Not to be confused with `precise`, where each write is an event. All under the engine's lock.
 */
#ifndef GUARD_H
#define GUARD_H

#include "engine.h"

int guard_open(struct engine *engine);
void guard_close(struct engine *engine);

/* Is the region guarded now? Its `point` is then above those of `precise`. */
static inline bool guard_holds(const struct region *region)
{
	return region->point > POINTS;
}

/* A region came: it gets what is free, if it shares its page and is small enough. */
void guard_offer(struct engine *engine, struct region *region);
void guard_remove(struct engine *engine, struct region *region);
/* Somebody asks for a watchpoint of his own: makes room. */
void guard_yield(struct engine *engine);
/*
 * The diff has just found a change without an exact author: the region may get a guard, the idle one of another region
 * if need be.
 */
void guard_suggest(struct engine *engine, const struct region *region);
void guard_stats(const struct engine *engine, struct memwatch_stats *stats);

/* --- on the worker --- */

/* Takes a hit as a note; one of no guard is ignored. */
void guard_take(struct engine *engine, const struct hit *hit);
/* Lends and takes back. */
void guard_pass(struct engine *engine);
/* Before the region is read: keeps the words that its guard covers. */
void guard_keep(struct engine *engine, const struct region *region);
/*
 * The first of the hits that lead, one by one, from the value that a covered word had to the one that it has. NULL:
 * there are none that do.
 */
const struct taken *guard_find(struct engine *engine, const struct region *region);
/* The region has been read: what no hit told of is the old value of the next one. */
void guard_settle(struct engine *engine, const struct region *region);

#endif
