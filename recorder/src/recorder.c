/*
 * recorder.c -- DESIGN: the public functions: options, a recorder's begin and end, what others may ask of it. What is
 * recorded, and what happens on loss, is record.c. Any thread.
 */
#define _GNU_SOURCE
#include "error.h"
#include "record.h"
#include "run.h"
#include "vfs.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CLOSE_FLUSH_MS = 2000, STACK_BYTES = 1 << 20 };

#define MAX_BYTES_DEFAULT (UINT64_C(256) << 20)
#define MAX_BYTES_MIN (UINT64_C(1) << 20)
#define MAX_BYTES_MAX (UINT64_C(1) << 40)

static const struct memwatch_recorder_options defaults = {
	.struct_bytes = sizeof defaults, .max_bytes = MAX_BYTES_DEFAULT, .commit_ms = 200, .sync = 1
};

void memwatch_recorder_options_init_sized(struct memwatch_recorder_options *options, size_t struct_bytes)
{
	struct memwatch_recorder_options ours = defaults;
	ours.struct_bytes = struct_bytes;
	if (options)
		memwatch_struct_write(options, struct_bytes, &ours, sizeof ours);
}

static int check_options(const struct memwatch_recorder_options *options)
{
	if (!options->path || !options->path[0])
		return recorder_error_set(-EINVAL, "the recorder needs a path");
	if (options->max_bytes < MAX_BYTES_MIN || options->max_bytes > MAX_BYTES_MAX)
		return recorder_error_set(-EINVAL, "max_bytes must be 1 MiB to 1 TiB, not %llu",
					  (unsigned long long)options->max_bytes);
	if (options->commit_ms < 1 || options->commit_ms > 1000)
		return recorder_error_set(-EINVAL, "commit_ms must be 1 to 1000, not %u", options->commit_ms);
	return 0;
}

/* What was given, over the defaults. */
static int take_options(const struct memwatch_recorder_options *given, struct memwatch_recorder_options *ret_options)
{
	*ret_options = defaults;
	int error = given ? memwatch_struct_read(ret_options, sizeof *ret_options, given, given->struct_bytes) : 0;
	if (error == -E2BIG || (!error && ret_options->reserved))
		return recorder_error_set(-EINVAL,
					  "an option is set that this library, %s, does not know: leave it out, or run "
					  "with the library that the program's header came with",
					  memwatch_version());
	if (error)
		return recorder_error_set(error, "options must come from memwatch_recorder_options_init");
	return check_options(ret_options);
}

/* The path from the root, so that the process may change its directory. NULL without memory, and for NULL. */
static char *absolute(const char *path)
{
	char here[PATH_MAX], *whole;
	if (!path)
		return NULL;
	if (path[0] == '/' || !getcwd(here, sizeof here))
		return strdup(path);
	return asprintf(&whole, "%s/%s", here, path) < 0 ? NULL : whole;
}

/*
 * All signals are the host's, but for those that a fault raises here: other threads may watch pages that this one
 * writes.
 */
static int start_thread(struct memwatch_recorder *recorder)
{
	sigset_t blocked, before;
	pthread_attr_t attr;
	sigfillset(&blocked);
	sigdelset(&blocked, SIGSEGV);
	sigdelset(&blocked, SIGBUS);
	sigdelset(&blocked, SIGTRAP);
	sigdelset(&blocked, SIGILL);
	sigdelset(&blocked, SIGFPE);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	int error = pthread_create(&recorder->thread, &attr, record_run, recorder);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (error)
		return recorder_error_set(-error, "the recorder's thread cannot be started: %s", strerror(error));
	pthread_setname_np(recorder->thread, "memwatch-record");
	return 0;
}

static void init_lock(struct memwatch_recorder *recorder)
{
	pthread_condattr_t attr;
	pthread_mutex_init(&recorder->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&recorder->changed, &attr);
	pthread_condattr_destroy(&attr);
}

static void destroy(struct memwatch_recorder *recorder)
{
	run_fini(&recorder->run);
	pthread_cond_destroy(&recorder->changed);
	pthread_mutex_destroy(&recorder->mutex);
	free(recorder->path);
	free(recorder);
}

/* The newest seq: what comes after it is recorded. */
static int newest_seq(memwatch *watcher, uint64_t *ret_seq)
{
	const struct memwatch_event *none[1];
	struct memwatch_cursor cursor;
	int error = memwatch_events_read(watcher, UINT64_MAX, none, 0, &cursor);
	if (error < 0)
		return recorder_error_set(error, "%s", memwatch_error());
	*ret_seq = cursor.newest;
	return 0;
}

int memwatch_recorder_open(memwatch *watcher, const struct memwatch_recorder_options *given,
			   memwatch_recorder **ret_recorder)
{
	struct memwatch_recorder_options options;
	uint64_t newest = 0;
	if (!ret_recorder)
		return recorder_error_set(-EINVAL, "the place for the recorder is NULL");
	int error = take_options(given, &options);
	if (!error)
		error = newest_seq(watcher, &newest);
	if (error)
		return error;
	struct memwatch_recorder *recorder = calloc(1, sizeof *recorder);
	if (!recorder)
		return recorder_error_set(-ENOMEM, "no memory for a recorder");
	init_lock(recorder);
	/* here, so that the caller's forks know of it: one that is under way when it registers does not */
	recorder_vfs_name();
	recorder->watcher = recorder->run.watcher = watcher;
	recorder->pid = getpid();
	recorder->options = options;
	recorder->options.max_bytes -= options.max_bytes % DB_PAGE_BYTES;
	recorder->run.max_bytes = recorder->options.max_bytes;
	recorder->run.committed.last_seq = newest;
	recorder->stats =
		(struct memwatch_recorder_stats){ .state = "starting", .max_bytes = recorder->options.max_bytes };
	recorder->path = absolute(options.path);
	error = recorder->path ? memwatch_sink_open(watcher, "recorder", &recorder->sink) : -ENOMEM;
	if (error) {
		recorder_error_set(error, "the recorder cannot be opened: %s",
				   recorder->path ? memwatch_error() : "no memory");
		goto destroy;
	}
	error = start_thread(recorder);
	if (error)
		goto close_sink;
	*ret_recorder = recorder;
	return 0;

close_sink:
	memwatch_sink_close(recorder->sink);
destroy:
	destroy(recorder);
	return error;
}

static int refuse_child(const struct memwatch_recorder *recorder)
{
	if (!recorder)
		return recorder_error_set(-EINVAL, "the recorder is NULL");
	return recorder->pid == getpid()
		       ? 0
		       : recorder_error_set(-ECHILD, "this recorder belongs to the process that forked this one");
}

int memwatch_recorder_flush(memwatch_recorder *recorder, int timeout_ms)
{
	uint64_t newest = 0, deadline_ms = record_now_ms() + (uint64_t)(timeout_ms < 0 ? INT_MAX : timeout_ms);
	int error = refuse_child(recorder);
	if (!error)
		error = newest_seq(recorder->watcher, &newest);
	if (error)
		return error;
	bool in_time = true;
	pthread_mutex_lock(&recorder->mutex);
	while (!(recorder->stats.run && recorder->stats.committed_seq >= newest) && in_time) {
		recorder->hurry = true;
		pthread_mutex_unlock(&recorder->mutex);
		memwatch_sink_wake(recorder->sink);
		pthread_mutex_lock(&recorder->mutex);
		if (recorder->hurry)
			in_time = record_wait_until(recorder, deadline_ms);
	}
	pthread_mutex_unlock(&recorder->mutex);
	return in_time ? 0 : recorder_error_set(-ETIMEDOUT, "the events were not committed within %d ms", timeout_ms);
}

void memwatch_recorder_close(memwatch_recorder *recorder)
{
	if (!recorder || recorder->pid != getpid())
		return;
	memwatch_flush(recorder->watcher, CLOSE_FLUSH_MS);
	pthread_mutex_lock(&recorder->mutex);
	recorder->stopping = true;
	pthread_cond_broadcast(&recorder->changed);
	pthread_mutex_unlock(&recorder->mutex);
	memwatch_sink_wake(recorder->sink);
	pthread_join(recorder->thread, NULL);
	memwatch_sink_close(recorder->sink);
	destroy(recorder);
}

int memwatch_recorder_stats_get_sized(memwatch_recorder *recorder, struct memwatch_recorder_stats *ret_stats,
				      size_t struct_bytes)
{
	struct memwatch_recorder_stats stats;
	int error = refuse_child(recorder);
	if (!error && !ret_stats)
		error = recorder_error_set(-EINVAL, "the place for the stats is NULL");
	if (error)
		return error;
	pthread_mutex_lock(&recorder->mutex);
	stats = recorder->stats;
	pthread_mutex_unlock(&recorder->mutex);
	memwatch_struct_write(ret_stats, struct_bytes, &stats, sizeof stats);
	return 0;
}
