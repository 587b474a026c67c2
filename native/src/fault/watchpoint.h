/*
 * watchpoint.h -- hardware watchpoints: each write to one of a few small variables is a hit of its own. See hits.h.
 */
#ifndef WATCHPOINT_H
#define WATCHPOINT_H

#include "../base/hits.h"
#include "../base/ring.h"

extern const struct hit_source fault_watchpoint;

/* Is this perf signal's sig_data a watchpoint's? Signal-safe. */
bool watchpoint_is(uint64_t data);
/*
 * Takes the hit, between fault_enter and fault_leave, and wakes the worker, which sleeps on `ring`. `late`: the thread had blocked
 * the signal, `context` is not the writer's. Signal-safe.
 */
void watchpoint_on_trap(struct ring *ring, uint64_t data, bool late, void *context);

#endif
