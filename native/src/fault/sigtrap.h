/*
 * sigtrap.h -- a source of notes: a signal on the thread that wrote, before its write executes.
 */
#ifndef SIGTRAP_H
#define SIGTRAP_H

#include "../base/backend.h"

extern const struct source fault_sigtrap;

#endif
