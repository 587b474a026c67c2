/*
 * log.h -- the log of a watcher's events.
 *
 * An event that waits for names (resolver.h), and those after it, are in the log and not shown to readers yet.
 *
 *   who may run together    log_append: the worker, or whoever posts, under the engine's lock
 *                           log_first_unnamed, log_complete: the resolver's thread
 *                           everything else: any thread, any time; one short mutex
 */
#ifndef LOG_H
#define LOG_H

#include "../base/event.h"

struct log {
	pthread_mutex_t mutex;
	pthread_cond_t changed; /* an event came, or the log closes */
	struct event **slots;   /* a circle of `capacity`, by seq */
	uint64_t capacity, budget_bytes;
	uint64_t oldest, newest, bytes, n_evicted;
	uint64_t shown; /* the newest that readers see */
	struct memwatch_sink *sinks;
	uint32_t generation; /* of forks */
	unsigned n_refs;
	unsigned n_inside; /* threads in a waiting call */
	bool closing;
	bool unannounced; /* shown since the last announcement */
};

/* With one reference, the watcher's; each open sink has another. */
int log_new(uint64_t capacity, uint64_t budget_bytes, struct log **ret_log);
/* Wakes the readers, waits until they are out. Sinks read what is left and then learn that it is the end. */
void log_close(struct log *log);
void log_ref(struct log *log);
void log_unref(struct log *log);
/* Gives the event its seq and takes over its reference. Evicts the oldest when the log is full. Wakes nobody. */
uint64_t log_append(struct log *log, struct event *event);
/* Wakes the readers if there is something new for them. False when some of the log waits for names. */
bool log_announce(struct log *log);
/* The first event that waits for names, with a reference; NULL: none does. */
struct event *log_first_unnamed(struct log *log);
/* The event has its names: `fill` puts them in, while no reader sees it. */
void log_complete(struct log *log, struct event *event, void (*fill)(struct event *event, const void *arg),
		  const void *arg);
/* Waits until the event is shown, so that all of it may be read; false when that takes long. */
bool log_await(struct log *log, uint64_t seq, int timeout_ms);
/* The newest seq, shown or not, 0: there is none yet. */
uint64_t log_newest(struct log *log);
/* `woken` NULL: nothing but an event, the timeout or the end wakes it. */
int log_wait(struct log *log, uint64_t since, int timeout_ms, int *woken);
void log_wake(struct log *log, int *woken);
int log_read(struct log *log, uint64_t since, const struct memwatch_event **events, size_t n,
	     struct memwatch_cursor *ret_cursor);
void log_stats(struct log *log, struct memwatch_stats *stats);

/* With the mutex held. The wait, for something after `*since`; `woken` (may be NULL) ends it too. */
int log_wait_locked(struct log *log, const uint64_t *since, int timeout_ms, int *woken);
int log_read_locked(struct log *log, uint64_t since, const struct memwatch_event **events, size_t n,
		    struct memwatch_cursor *ret_cursor);

#endif
