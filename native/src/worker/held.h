/*
 * held.h -- max_rate: an event that comes too early waits for its time. All under the engine's lock.
 */
#ifndef HELD_H
#define HELD_H

#include "engine.h"

/*
 * Takes an event over that comes too early. False: it may go now; then the next is due an interval later. An event that
 * waits already is merged into it.
 */
bool held_put(struct engine *engine, struct region *region, struct event *event);
/* Does an event wait? */
bool held_is(const struct region *region);
/*
 * A change was filtered while an event waits. `ranges`, an event that nobody has, is taken over; NULL: none are known,
 * or values will be compared.
 */
void held_pass_by(struct region *region, struct event *ranges);
/* Lets the event go that waits, if there is one. */
void held_release(struct engine *engine, struct region *region);
/* Lets events go whose time has come, or all of them. Returns when the next is due, 0: none waits. */
uint64_t held_due(struct engine *engine, bool all);

#endif
