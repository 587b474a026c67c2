/*
 * lifetime.c -- DESIGN: who may be in the process's engine, and what happens to it over a fork. `life_lock` is held
 * while a watcher comes or goes. Backends open when a watcher first wants them and stay open until the engine ends;
 * poll is always open, since it takes what the others cannot.
 *
 * In the child of a fork there is no worker: the child forgets the engine (its memory is the parent's copy, and is left
 * alone), gives up the descriptors and makes its pages ordinary memory.
 */
#define _GNU_SOURCE
#include "lifetime.h"

#include "options.h"
#include "fault/fault.h"
#include "fault/watchpoint.h"
#include "worker/guard.h"
#include "worker/precise.h"
#include "worker/resolver.h"
#include "worker/worker.h"
#include "base/location.h"
#include "base/names.h"
#include "base/stack.h"
#include "base/syscalls.h"

#include <memwatch/reader.h>

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <time.h>

static pthread_mutex_t life_lock = PTHREAD_MUTEX_INITIALIZER;
static struct engine *the_engine;
static bool worker_rests; /* under `life_lock`: there is an engine without its thread */

/* --- fork --- */

/* Between before_fork and in_parent. */
static _Thread_local bool fork_has_life __attribute__((tls_model("initial-exec")));
static _Thread_local bool fork_has_pass __attribute__((tls_model("initial-exec")));
static _Thread_local bool fork_has_names __attribute__((tls_model("initial-exec")));

/*
 * A pass or a look-up of symbols may hold locks of the C library's, which the child could never take again: let it end
 * first. Not for long, since the forking thread may be one that a signal handler interrupted in the middle of a pass.
 */
static void before_fork(void)
{
	enum { PATIENCE_MS = 200 };
	uint64_t deadline_ns = time_realtime_ns() + PATIENCE_MS * NS_PER_MS;
	struct timespec deadline = { (time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S) };
	fork_has_life = pthread_mutex_trylock(&life_lock) == 0;
	struct engine *engine = fork_has_life ? the_engine : NULL;
	fork_has_pass = engine && pthread_mutex_timedlock(&engine->pass_lock, &deadline) == 0;
	fork_has_names = engine && resolver_hold(engine->resolver, &deadline);
}

static void in_parent(void)
{
	struct engine *engine = fork_has_life ? the_engine : NULL;
	if (engine)
		atomic_fetch_add_explicit(&engine->n_forks, 1, memory_order_relaxed);
	if (engine && fork_has_names)
		resolver_release(engine->resolver);
	if (engine && fork_has_pass)
		pthread_mutex_unlock(&engine->pass_lock);
	if (fork_has_life)
		pthread_mutex_unlock(&life_lock);
}

static void in_child(void)
{
	struct engine *engine = the_engine;
	atomic_fetch_add(&fork_generation, 1);
	life_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	the_engine = NULL;
	worker_rests = false;
	mem_fork_child();
	fault_fork_child();
	stack_fork_child();
	if (!engine)
		return;
	engine->hits->fork_child();
	backends_fork_child(engine);
}

/* --- the engine's life --- */

/* Too large for a record that comes and goes; what is left in it of an engine that has gone does no harm. */
static struct page_set early;

static int engine_init(struct engine *engine, const struct memwatch_options *options)
{
	pthread_condattr_t attr;
	engine->window_ns = options->window_ms * NS_PER_MS;
	engine->budget = options->attribution_budget;
	engine->poll_budget = options->poll_budget;
	engine->hits = &fault_watchpoint;
	engine->no_source = engine->budget == 0 ? MEMWATCH_REASON_OFF : MEMWATCH_REASON_UNAVAILABLE;
	pthread_mutex_init(&engine->lock, NULL);
	pthread_mutex_init(&engine->request_lock, NULL);
	pthread_mutex_init(&engine->pass_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&engine->pass_done, &attr);
	pthread_condattr_destroy(&attr);
	engine->pass.this_full_ns = engine->pass.last_full_ns = time_monotonic_ns();
	int error = location_open();
	names_open();
	if (!error)
		error = stack_open();
	if (!error)
		error = ring_init(&engine->ring, options->ring_capacity, sizeof(struct note));
	if (!error)
		error = regions_init(&engine->regions);
	if (!error)
		error = gather_init(&engine->gather);
	diff_init(&engine->diff);
	engine->early = &early;
	if (!error)
		error = precise_open(engine);
	if (!error)
		error = guard_open(engine);
	if (!error)
		error = resolver_open(options->stack_depth, &engine->resolver);
	return error;
}

static void engine_fini(struct engine *engine)
{
	regions_fini(&engine->regions);
	ring_fini(&engine->ring);
	diff_fini(&engine->diff);
	gather_fini(&engine->gather);
	who_fini(&engine->who);
	precise_close(engine);
	guard_close(engine);
	resolver_close(engine->resolver);
	span_list_fini(&engine->pass.written);
	span_list_fini(&engine->pass.polled);
	span_list_fini(&engine->pass.noted);
	span_list_fini(&engine->pass.unseen);
	span_list_fini(&engine->pass.peeked);
	region_list_fini(&engine->pass.touched);
	region_list_fini(&engine->held);
	mem_free(engine->pass.head);
	pthread_cond_destroy(&engine->pass_done);
	pthread_mutex_destroy(&engine->pass_lock);
	pthread_mutex_destroy(&engine->request_lock);
	pthread_mutex_destroy(&engine->lock);
	mem_free(engine);
}

static int threads_start(struct engine *engine)
{
	int error = resolver_start(engine->resolver);
	if (error)
		return error;
	error = worker_start(engine);
	if (error)
		resolver_stop(engine->resolver);
	return error;
}

/* A thread that was joined is counted for a moment yet: until it cannot be found any more. */
static void await_end(pid_t thread_id)
{
	const struct timespec pause = { .tv_nsec = 50000 };
	uint64_t deadline_ns = time_monotonic_ns() + NS_PER_S;
	while (syscall(SYS_tgkill, getpid(), thread_id, 0) == 0 && time_monotonic_ns() < deadline_ns)
		nanosleep(&pause, NULL);
}

static void threads_stop(struct engine *engine)
{
	pid_t worker = worker_stop(engine), resolver = resolver_stop(engine->resolver);
	await_end(worker);
	await_end(resolver);
}

static int engine_begin(const struct memwatch_options *options)
{
	static bool prepared; /* under `life_lock` */
	struct engine *engine = mem_alloc(sizeof *engine);
	if (!engine)
		return error_set(-ENOMEM, "no memory for the engine");
	if (!prepared) {
		pthread_atfork(before_fork, in_parent, in_child);
		prepared = true;
	}
	syscalls_probe();
	int error = engine_init(engine, options);
	if (!error)
		error = backends_begin(engine);
	if (!error)
		error = threads_start(engine);
	if (error) {
		engine_fini(engine);
		return error;
	}
	fault_depth_set(options->stack_depth);
	fault_ring_set(&engine->ring);
	the_engine = engine;
	return 0;
}

static void engine_end(struct engine *engine)
{
	engine_lock(engine);
	bool quiet = backends_close(engine);
	engine_unlock(engine);
	if (!worker_rests)
		threads_stop(engine);
	worker_rests = false;
	if (quiet) /* else a handler may still write into the ring: rather lose the memory */
		engine_fini(engine);
	the_engine = NULL;
}

void memwatch_threads_stop(void)
{
	pthread_mutex_lock(&life_lock);
	if (the_engine && !worker_rests) {
		threads_stop(the_engine);
		worker_rests = true;
	}
	pthread_mutex_unlock(&life_lock);
}

int memwatch_threads_start(void)
{
	int error = 0;
	pthread_mutex_lock(&life_lock);
	if (worker_rests) {
		error = threads_start(the_engine);
		worker_rests = error != 0;
	}
	pthread_mutex_unlock(&life_lock);
	return error;
}

/* A later watcher may leave the engine's options at their defaults or ask for what is there. */
static int fits(const struct engine *engine, const struct memwatch_options *options)
{
	const char *what = NULL;
	if (options->window_ms != WRITABLE_WINDOW_MS && options->window_ms * NS_PER_MS != engine->window_ns)
		what = "window_ms";
	if (options->ring_capacity != RING_CAPACITY && options->ring_capacity != engine->ring.capacity)
		what = "ring_capacity";
	if (options->attribution_budget != ATTRIBUTION_BUDGET && options->attribution_budget != engine->budget)
		what = "attribution_budget";
	if (options->poll_budget != POLL_BUDGET && options->poll_budget != engine->poll_budget)
		what = "poll_budget";
	if (options->stack_depth != STACK_DEPTH && options->stack_depth != fault_depth())
		what = "stack_depth";
	return what ? error_set(-EBUSY,
				"%s belongs to the engine that all watchers of this process share, "
				"and another watcher has set "
				"it; close that one first",
				what)
		    : 0;
}

static int slot_take(struct engine *engine, struct memwatch *watcher)
{
	for (unsigned i = 0; i < WATCHERS_MAX; i++) {
		if (!engine->watchers[i]) {
			watcher->index = (uint8_t)i;
			engine->watchers[i] = watcher;
			engine->n_watchers++;
			return 0;
		}
	}
	return error_set(-ENOSPC, "%d watchers are open, which is the limit; close some first", WATCHERS_MAX);
}

int lifetime_join(const struct memwatch_options *options, struct memwatch *watcher)
{
	pthread_mutex_lock(&life_lock);
	int error = the_engine ? fits(the_engine, options) : engine_begin(options);
	if (!error) {
		engine_lock(the_engine);
		error = backends_choose(the_engine, options, watcher);
		if (!error)
			error = slot_take(the_engine, watcher);
		engine_unlock(the_engine);
		watcher->engine = the_engine;
		watcher->forks_before = atomic_load(&the_engine->n_forks);
		if (error && !the_engine->n_watchers)
			engine_end(the_engine);
	}
	pthread_mutex_unlock(&life_lock);
	return error;
}

void lifetime_leave(struct memwatch *watcher)
{
	struct engine *engine = watcher->engine;
	pthread_mutex_lock(&life_lock);
	engine_lock(engine);
	engine->watchers[watcher->index] = NULL;
	engine->n_watchers--;
	engine_unlock(engine);
	if (!engine->n_watchers)
		engine_end(engine);
	pthread_mutex_unlock(&life_lock);
}

void lifetime_probe(struct backend_notes *ret_notes)
{
	struct memwatch_options options;
	options_default(&options);
	pthread_mutex_lock(&life_lock);
	int error = the_engine ? 0 : engine_begin(&options);
	if (!error) {
		engine_lock(the_engine);
		backends_probe(the_engine);
		engine_unlock(the_engine);
		if (!the_engine->n_watchers)
			engine_end(the_engine);
	}
	backends_notes(ret_notes);
	pthread_mutex_unlock(&life_lock);
}
