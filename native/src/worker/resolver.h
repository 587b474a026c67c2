/*
 * resolver.h -- names for the instructions in events, on a thread of its own: the first look into an object's symbols
 * takes long, and a pass does not wait for it. An event whose instruction is known goes to the sinks at once; another,
 * and all that come after it, when its name is there. Of a writer whose stack was taken, callers are looked up, too.
 *
 *   who may run together    resolver_name, resolver_want: the worker, or whoever emits, under the engine's lock
 *                           resolver_hold, resolver_release: a thread that forks
 *                           everything else: when an engine comes or goes, one thread
 */
#ifndef RESOLVER_H
#define RESOLVER_H

#include "log.h"

struct resolver;

/* `depth`: how many native frames are wanted. 0 or -ENOMEM with a sentence. Starts no thread yet. */
int resolver_open(unsigned depth, struct resolver **ret_resolver);
/* `resolver` may be NULL; its thread does not run. */
void resolver_close(struct resolver *resolver);
int resolver_start(struct resolver *resolver);
/* Ends its thread, once all that it was asked for has its names; the thread's id. Blocks. */
pid_t resolver_stop(struct resolver *resolver);
/* As gettid(2) gives it, 0: none runs. */
int32_t resolver_thread(const struct resolver *resolver);

/* Before the event is appended: fills in the names where they are known, else marks it. */
void resolver_name(struct resolver *resolver, struct event *event);
/* Tells the readers what of the log is ready, and has names found for the rest. */
void resolver_announce(struct resolver *resolver, struct log *log);

/*
 * Around a fork: no look-up is under way, which may hold locks of the C library's. False when that takes until the
 * deadline (CLOCK_REALTIME).
 */
bool resolver_hold(struct resolver *resolver, const struct timespec *deadline);
void resolver_release(struct resolver *resolver);

#endif
