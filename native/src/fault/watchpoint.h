/*
 * watchpoint.h -- hardware watchpoints: each write to one of a few small variables is a hit of its own. See hits.h.
 */
#ifndef WATCHPOINT_H
#define WATCHPOINT_H

#include "../base/hits.h"

extern const struct hit_source fault_watchpoint;

#endif
