/*
 * memwatch.c -- DESIGN: watchers: opened, flushed, closed, their log and their callback. Everything here runs on its
 * caller's thread. See lifetime.c for what watchers share, watch.c for regions, stats.c for numbers.
 */
#define _GNU_SOURCE
#include "handle.h"
#include "lifetime.h"
#include "options.h"
#include "watch.h"
#include "base/hash.h"
#include "base/loaded.h"
#include "base/structs.h"
#include "worker/post.h"
#include "worker/worker.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { CLOSE_FLUSH_MS = 2000 };

static uint64_t random_number(void)
{
	uint64_t number = 0;
	if (getrandom(&number, sizeof number, GRND_NONBLOCK) != sizeof number || !number)
		number = hash_word(time_realtime_ns()) | 1;
	return number;
}

int memwatch_open(const struct memwatch_options *given, memwatch **ret_watcher)
{
	struct memwatch_options options;
	options_default(&options);
	int error = given ? structs_take("options", &options, sizeof options, given, given->struct_bytes) : 0;
	if (!error)
		error = options_check(&options);
	if (!error)
		error = watch_need(ret_watcher, "the place for the watcher");
	if (error)
		return error;
	loaded_for_ever();
	struct memwatch *watcher = handle_new();
	if (!watcher)
		return error_set(-ENOMEM, "no memory for a watcher");
	watcher->inline_threshold = options.inline_threshold;
	watcher->preview_size = options.preview_size;
	watcher->history.budget = options.history_budget;
	watcher->patches = options.patches != 0;
	watcher->follows_forks = options.follows_forks != 0;
	watcher->epoch = random_number();
	watcher->hash_key = siphash_key_make();
	watcher->start_time_ns = time_realtime_ns();
	pthread_mutex_init(&watcher->callback_lock, NULL);
	error = log_new(options.event_capacity, options.event_budget, &watcher->log);
	if (error)
		goto free_watcher;
	error = lifetime_join(&options, watcher);
	if (error)
		goto unref_log;
	handle_open(watcher);
	*ret_watcher = watcher;
	return 0;

unref_log:
	log_unref(watcher->log);
free_watcher:
	pthread_mutex_destroy(&watcher->callback_lock);
	handle_free(watcher);
	return error;
}

static int ms_until(uint64_t deadline_ns)
{
	uint64_t now_ns = time_monotonic_ns();
	return deadline_ns > now_ns ? (int)min_u64((deadline_ns - now_ns) / NS_PER_MS + 1, INT_MAX) : 0;
}

int memwatch_flush(memwatch *watcher, int timeout_ms)
{
	int error = handle_enter(watcher);
	if (error)
		return error;
	uint64_t deadline_ns = time_monotonic_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * NS_PER_MS;
	error = worker_flush(watcher->engine, deadline_ns);
	if (!error && !log_await(watcher->log, log_newest(watcher->log), ms_until(deadline_ns)))
		error = -ETIMEDOUT;
	handle_leave(watcher);
	return error ? error_set(error, "the flush did not end within %d ms", timeout_ms) : 0;
}

/* What is left when nobody is inside. */
static void destroy(struct memwatch *watcher)
{
	engine_lock(watcher->engine);
	watch_remove_all(watcher->engine, watcher);
	history_fini(&watcher->history);
	engine_unlock(watcher->engine);
	lifetime_leave(watcher);
	log_unref(watcher->log);
	pthread_mutex_destroy(&watcher->callback_lock);
	handle_free(watcher);
}

static struct dispatcher *dispatcher_of(struct memwatch *watcher)
{
	pthread_mutex_lock(&watcher->callback_lock);
	struct dispatcher *dispatcher = watcher->dispatcher;
	pthread_mutex_unlock(&watcher->callback_lock);
	return dispatcher;
}

int memwatch_close(memwatch *watcher)
{
	int error = watcher ? handle_enter(watcher) : 0;
	if (error || !watcher)
		return error;
	error = dispatcher_wait_begin(dispatcher_of(watcher));
	handle_leave(watcher);
	if (error)
		return error;
	error = handle_claim(watcher);
	if (!error) {
		memwatch_flush(watcher, CLOSE_FLUSH_MS);
		struct dispatcher *dispatcher = dispatcher_of(watcher);
		if (dispatcher)
			dispatcher_stop(dispatcher);
		log_close(watcher->log);
		handle_shut(watcher);
		destroy(watcher);
	}
	dispatcher_wait_end();
	return error;
}

uint64_t memwatch_epoch(const memwatch *watcher)
{
	struct memwatch *held = (struct memwatch *)(uintptr_t)watcher;
	if (handle_enter(held))
		return 0;
	uint64_t epoch = watcher->epoch;
	handle_leave(held);
	return epoch;
}

/* --- events that adapters found --- */

static int check_post(const struct memwatch_post *post)
{
	if (post->n_frames && !post->frames)
		return error_set(-EINVAL, "n_frames without frames");
	if ((unsigned)post->attribution > MEMWATCH_ATTRIBUTION_EXACT || (unsigned)post->reason >= MEMWATCH_REASONS)
		return error_set(-EINVAL, "attribution or reason is out of range");
	return 0;
}

int memwatch_event_post(memwatch *watcher, uint64_t id, const struct memwatch_post *given, uint64_t *ret_seq)
{
	uint64_t seq = 0;
	struct memwatch_post post = { 0 };
	int error = given ? structs_take("post", &post, sizeof post, given, given->struct_bytes)
			  : error_set(-EINVAL, "there is no post");
	if (!error)
		error = check_post(&post);
	struct region *region = error ? NULL : watch_hold(watcher, id, &error);
	if (!region)
		return error;
	if (region->start)
		error = error_set(-EINVAL, "\"%s\" has memory; events are posted for external regions",
				  region_name(region));
	else
		error = post_event(watcher->engine, region, &post, &seq);
	watch_unlock(watcher);
	if (!error && ret_seq)
		*ret_seq = seq;
	return error;
}

int memwatch_external_set(memwatch *watcher, uint64_t id, const struct memwatch_scalar *number)
{
	int error = watch_need(number, "the number");
	struct region *region = error ? NULL : watch_hold(watcher, id, &error);
	if (!region)
		return error;
	if (region->start)
		error = error_set(-EINVAL, "\"%s\" has memory, which says what it holds", region_name(region));
	else if (!region_meta(region))
		error = error_set(-ENOMEM, "no memory for a region's number");
	else if (region->values == MEMWATCH_VALUES_FULL)
		region_set_posted(region, number);
	watch_unlock(watcher);
	return error;
}

/* --- the log and its sinks --- */

int memwatch_events_read_sized(memwatch *watcher, uint64_t since, const struct memwatch_event **events, size_t n,
			       struct memwatch_cursor *ret_cursor, size_t struct_bytes)
{
	struct memwatch_cursor cursor;
	int result = n ? watch_need(events, "the list") : 0;
	if (!result)
		result = handle_enter(watcher);
	if (result)
		return result;
	result = log_read(watcher->log, since, events, n, &cursor);
	handle_leave(watcher);
	if (ret_cursor)
		memwatch_struct_write(ret_cursor, struct_bytes, &cursor, sizeof cursor);
	return result;
}

int memwatch_events_wait(memwatch *watcher, uint64_t since, int timeout_ms)
{
	return memwatch_events_wait_or_wake(watcher, since, timeout_ms, NULL);
}

int memwatch_events_wait_or_wake(memwatch *watcher, uint64_t since, int timeout_ms, int *woken)
{
	int result = handle_enter(watcher);
	if (result)
		return result;
	result = log_wait(watcher->log, since, timeout_ms, woken);
	handle_leave(watcher);
	return result;
}

void memwatch_events_wake(memwatch *watcher, int *woken)
{
	if (!woken || handle_enter(watcher))
		return;
	log_wake(watcher->log, woken);
	handle_leave(watcher);
}

int memwatch_sink_open(memwatch *watcher, const char *name, memwatch_sink **ret_sink)
{
	int error = watch_need(name, "the name");
	if (!error)
		error = watch_need(ret_sink, "the place for the sink");
	if (!error && (!*name || strlen(name) >= sizeof((struct memwatch_sink_info *)NULL)->name))
		error = error_set(-EINVAL, "a sink's name has 1 to %zu bytes, not %zu",
				  sizeof((struct memwatch_sink_info *)NULL)->name - 1, strlen(name));
	if (!error)
		error = handle_enter(watcher);
	if (error)
		return error;
	error = sink_open(watcher->log, name, ret_sink);
	handle_leave(watcher);
	return error;
}

void memwatch_sink_close(memwatch_sink *sink)
{
	if (sink && sink->log->generation == atomic_load(&fork_generation))
		sink_close(sink);
}

int memwatch_sink_list_sized(memwatch *watcher, struct memwatch_sink_info *infos, size_t n, size_t struct_bytes)
{
	int result = n ? watch_need(infos, "the list") : 0;
	if (!result)
		result = handle_enter(watcher);
	if (result)
		return result;
	result = sink_list(watcher->log, infos, n, struct_bytes);
	handle_leave(watcher);
	return result;
}

int memwatch_callback_set(memwatch *watcher, void (*callback)(const struct memwatch_event *event, void *arg), void *arg)
{
	int error = handle_enter(watcher);
	if (error)
		return error;
	pthread_mutex_lock(&watcher->callback_lock);
	if (callback && !watcher->dispatcher)
		error = dispatcher_new(watcher->log, &watcher->dispatcher);
	struct dispatcher *dispatcher = watcher->dispatcher;
	pthread_mutex_unlock(&watcher->callback_lock);
	if (!error && dispatcher)
		error = dispatcher_set(dispatcher, callback, arg);
	handle_leave(watcher);
	return error;
}
