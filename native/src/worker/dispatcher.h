/*
 * dispatcher.h -- the thread of a watcher that calls back for each event.
 *
 *   who may run together    everything: any thread, also the callback itself, but for dispatcher_stop
 */
#ifndef DISPATCHER_H
#define DISPATCHER_H

#include "sink.h"

struct dispatcher;

typedef void dispatcher_callback(const struct memwatch_event *event, void *arg);

/* Without a callback yet. -ENOMEM, -EAGAIN with a sentence. */
int dispatcher_new(struct log *log, struct dispatcher **ret_dispatcher);

/*
 * For the events from now on; NULL: for none. Waits for the call under way of the callback that it replaces, unless
 * this thread is one that calls back. -ENOMEM with a sentence.
 */
int dispatcher_set(struct dispatcher *dispatcher, dispatcher_callback *callback, void *arg);

/*
 * Before dispatcher_stop. -EDEADLK with a sentence: this thread is in a callback of that dispatcher, or of one whose
 * end that dispatcher's callback waits for.
 */
int dispatcher_wait_begin(const struct dispatcher *dispatcher);
/* After it. */
void dispatcher_wait_end(void);

/* Delivers what is in the log, and ends it. Blocks for the calls. */
void dispatcher_stop(struct dispatcher *dispatcher);

#endif
