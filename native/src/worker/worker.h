/*
 * worker.h -- the thread that turns written pages into events.
 */
#ifndef WORKER_H
#define WORKER_H

#include "engine.h"

int worker_start(struct engine *engine);
pid_t worker_stop(struct engine *engine); /* the id that its thread had */

/* Has a full pass look at everything, and waits for it. 0 or -ETIMEDOUT. Blocks; not with the lock. */
int worker_flush(struct engine *engine, uint64_t deadline_ns);
/* Looks at the pages of a span now, on the caller's thread. Blocks while a pass is under way; not with the lock. */
void worker_pass(struct engine *engine, struct span span);

#endif
