/*
 * handle.h -- who may be inside a watcher.
 *
 *   who may run together    all of it, on any thread
 */
#ifndef HANDLE_H
#define HANDLE_H

#include "worker/engine.h"

/* A watcher that nobody can enter yet, all zero but its generation. NULL: there are too many. */
struct memwatch *handle_new(void);
/* From now on it can be entered. */
void handle_open(struct memwatch *watcher);

/*
 * 0, and the watcher stays until handle_leave. Else with a sentence: -EINVAL it is NULL or no watcher, -ECHILD it came
 * through a fork, -EBADF it was closed.
 */
int handle_enter(struct memwatch *watcher);
void handle_leave(struct memwatch *watcher);

/* The right to close it, once; as handle_enter. */
int handle_claim(struct memwatch *watcher);
/* Of who has that right: no call enters any more; waits until those under way are out. */
void handle_shut(struct memwatch *watcher);
/* Of a watcher that is shut, or that was never open. */
void handle_free(struct memwatch *watcher);

#endif
