/*
 * dispatcher.c -- DESIGN: one thread a watcher, from its first callback until its end. Whoever sets a callback counts
 * `serial` up and wakes the thread; `seen` is the last serial that it knows, and what setters wait for: then no call of
 * an older one is under way. A callback is given the events after `since`, the newest when it was set, whatever the
 * thread has read. The sink is opened by who sets a callback and closed by the thread, which reads it without the
 * mutex.
 *
 * Callbacks may call all of the library. Those of two watchers could wait for each other's end: `waits_for` is followed
 * before anybody waits, and the one that would close the circle is refused.
 */
#define _GNU_SOURCE
#include "dispatcher.h"

#include <memwatch/reader.h>

enum { BATCH = 64 };

struct dispatcher {
	pthread_t thread;
	struct log *log;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	/* Under the mutex. */
	dispatcher_callback *callback; /* NULL: none */
	void *arg;
	uint64_t serial, seen, since;
	struct memwatch_sink *sink; /* NULL: there is no callback */
	bool stopping;
	/* Under `waits_lock`. */
	const struct dispatcher *waits_for;
};

static _Thread_local struct dispatcher *current __attribute__((tls_model("initial-exec"))); /* of this thread */
static pthread_mutex_t waits_lock = PTHREAD_MUTEX_INITIALIZER;

/* The mutex is held, but for the calls. */
static void deliver(struct dispatcher *dispatcher, const struct memwatch_event **events, int n)
{
	struct memwatch_sink *sink = dispatcher->sink;
	for (int i = 0; i < n; i++) {
		dispatcher_callback *callback = dispatcher->callback;
		if (callback && events[i]->seq > dispatcher->since) {
			void *arg = dispatcher->arg;
			pthread_mutex_unlock(&dispatcher->mutex);
			uint64_t start_ns = time_monotonic_ns();
			callback(events[i], arg);
			memwatch_sink_report(sink, time_monotonic_ns() - start_ns, 0);
			pthread_mutex_lock(&dispatcher->mutex);
		}
		memwatch_event_unref(events[i]);
	}
}

/* Waits until there is a callback, with the mutex. False: it is over. */
static bool await_callback(struct dispatcher *dispatcher)
{
	for (;;) {
		if (!dispatcher->callback && dispatcher->sink) {
			sink_close(dispatcher->sink);
			dispatcher->sink = NULL;
		}
		dispatcher->seen = dispatcher->serial;
		pthread_cond_broadcast(&dispatcher->changed);
		if (dispatcher->callback || dispatcher->stopping)
			return dispatcher->callback != NULL;
		pthread_cond_wait(&dispatcher->changed, &dispatcher->mutex);
	}
}

static void *dispatch(void *arg)
{
	struct dispatcher *dispatcher = current = arg;
	const struct memwatch_event *events[BATCH];
	bool over = false;
	pthread_mutex_lock(&dispatcher->mutex);
	while (!over && await_callback(dispatcher)) {
		struct memwatch_sink *sink = dispatcher->sink;
		bool stopping = dispatcher->stopping;
		pthread_mutex_unlock(&dispatcher->mutex);
		int n = memwatch_sink_read(sink, events, BATCH, stopping ? 0 : -1);
		pthread_mutex_lock(&dispatcher->mutex);
		over = n < 0 || (n == 0 && stopping);
		deliver(dispatcher, events, n);
	}
	pthread_mutex_unlock(&dispatcher->mutex);
	return NULL;
}

static void dispatcher_free(struct dispatcher *dispatcher)
{
	if (dispatcher->sink)
		sink_close(dispatcher->sink);
	pthread_cond_destroy(&dispatcher->changed);
	pthread_mutex_destroy(&dispatcher->mutex);
	mem_free(dispatcher);
}

int dispatcher_new(struct log *log, struct dispatcher **ret_dispatcher)
{
	struct dispatcher *dispatcher = mem_alloc(sizeof *dispatcher);
	if (!dispatcher)
		return error_set(-ENOMEM, "no memory for a callback");
	dispatcher->log = log;
	pthread_mutex_init(&dispatcher->mutex, NULL);
	pthread_cond_init(&dispatcher->changed, NULL);
	int error = thread_start(&dispatcher->thread, "memwatch-call", dispatch, dispatcher);
	if (error) {
		dispatcher_free(dispatcher);
		return error;
	}
	*ret_dispatcher = dispatcher;
	return 0;
}

int dispatcher_set(struct dispatcher *dispatcher, dispatcher_callback *callback, void *arg)
{
	int error = 0;
	pthread_mutex_lock(&dispatcher->mutex);
	if (callback && !dispatcher->sink)
		error = sink_open(dispatcher->log, "callback", &dispatcher->sink);
	if (!error) {
		dispatcher->since = log_newest(dispatcher->log);
		dispatcher->callback = callback;
		dispatcher->arg = arg;
		uint64_t serial = ++dispatcher->serial;
		if (dispatcher->sink)
			memwatch_sink_wake(dispatcher->sink);
		pthread_cond_broadcast(&dispatcher->changed);
		while (!current && dispatcher->seen < serial)
			pthread_cond_wait(&dispatcher->changed, &dispatcher->mutex);
	}
	pthread_mutex_unlock(&dispatcher->mutex);
	return error;
}

int dispatcher_wait_begin(const struct dispatcher *dispatcher)
{
	const struct dispatcher *end = dispatcher;
	if (!current || !dispatcher)
		return 0;
	pthread_mutex_lock(&waits_lock);
	while (end && end != current)
		end = end->waits_for;
	if (!end)
		current->waits_for = dispatcher;
	pthread_mutex_unlock(&waits_lock);
	if (end == dispatcher)
		return error_set(-EDEADLK, "a callback cannot close its own watcher: let another thread do it");
	return end ? error_set(-EDEADLK, "a callback of that watcher waits for the end of this one's") : 0;
}

void dispatcher_wait_end(void)
{
	pthread_mutex_lock(&waits_lock);
	if (current)
		current->waits_for = NULL;
	pthread_mutex_unlock(&waits_lock);
}

void dispatcher_stop(struct dispatcher *dispatcher)
{
	pthread_mutex_lock(&dispatcher->mutex);
	dispatcher->stopping = true;
	if (dispatcher->sink)
		memwatch_sink_wake(dispatcher->sink);
	pthread_cond_broadcast(&dispatcher->changed);
	pthread_mutex_unlock(&dispatcher->mutex);
	pthread_join(dispatcher->thread, NULL);
	dispatcher_free(dispatcher);
}
