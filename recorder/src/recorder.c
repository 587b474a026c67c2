/*
 * recorder.c -- DESIGN: one thread, "memwatch-record", reads a sink and commits what it read in one transaction a
 * commit interval. It owns the file and everything in `run`; other threads see the stats, under the mutex.
 *
 * Loss: events are released only once they are committed. While the file cannot be had the thread does not read on: the
 * watcher's log keeps the events as far as it reaches, and what it evicts meanwhile shows as a gap in seq, which is
 * recorded as one. Each failure is counted and its sentence kept; a second later it is tried again. Neither the
 * watcher's worker nor any thread of the host ever waits for the file.
 */
#define _GNU_SOURCE
#include "error.h"
#include "run.h"
#include "vfs.h"

#include <memwatch/reader.h>

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	PENDING_MAX = 16384,
	SLICE = 64, /* events that are added while a fork has to wait */
	RETRY_MS = 1000,
	BUSY_MS = 10,     /* until a commit that a reader holds up is tried again, */
	BUSY_TRIES = 100, /* and how often before that counts as a failure */
	CLOSE_FLUSH_MS = 2000,
	STACK_BYTES = 1 << 20,
	TRANSACTION_SHARE = 16, /* of the file: what one transaction may add */
	TRANSACTION_MAX_BYTES = 8 << 20,
	FULL_PERCENT = 90,  /* of the file in use; the next transaction needs the rest */
	SPARSE_PERCENT = 70 /* when that did not do */
};

#define MAX_BYTES_DEFAULT (UINT64_C(256) << 20)
#define MAX_BYTES_MIN (UINT64_C(1) << 20)
#define MAX_BYTES_MAX (UINT64_C(1) << 40)

struct memwatch_recorder {
	memwatch *watcher;
	memwatch_sink *sink;
	pid_t pid;
	pthread_t thread;
	struct memwatch_recorder_options options;
	char *path; /* absolute */
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool stopping, hurry;                 /* under the mutex */
	struct memwatch_recorder_stats stats; /* under the mutex */
	/* the thread's */
	struct run run;
	const struct memwatch_event *pending[PENDING_MAX];
	unsigned n_pending;
	bool ended; /* the watcher closes */
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t now_ms(void)
{
	return clock_ns(CLOCK_MONOTONIC) / 1000000u;
}

/* Waits on `changed` until that time. The mutex is held. */
static bool wait_until(struct memwatch_recorder *recorder, uint64_t deadline_ms)
{
	struct timespec deadline = { (time_t)(deadline_ms / 1000), (long)(deadline_ms % 1000) * 1000000 };
	return pthread_cond_timedwait(&recorder->changed, &recorder->mutex, &deadline) != ETIMEDOUT;
}

/* --- what others see --- */

/* The mutex is held. */
static void show(struct memwatch_recorder *recorder)
{
	const struct memwatch_recorder_stats *stats = &recorder->stats;
	struct memwatch_sink_status status = {
		.failing = strcmp(stats->state, "failing") == 0,
		.events_written = stats->events_written,
		.events_missed = stats->events_missed,
		.errors = stats->errors,
		.bytes_used = stats->bytes_used,
		.max_bytes = stats->max_bytes,
		.last_commit_ns = stats->run ? stats->last_commit_ns : 0,
	};
	memccpy(status.message, stats->message, 0, sizeof status.message - 1);
	memwatch_sink_status_set(recorder->sink, &status);
}

static void publish(struct memwatch_recorder *recorder, const char *state)
{
	const struct run *run = &recorder->run;
	const struct run_progress *progress = &run->committed;
	struct memwatch_recorder_stats *stats = &recorder->stats;
	pthread_mutex_lock(&recorder->mutex);
	stats->state = state;
	stats->run = (uint32_t)run->number;
	stats->events_written = progress->events_written;
	stats->events_missed = progress->events_missed;
	stats->events_evicted = progress->events_evicted;
	stats->versions_written = progress->versions_written;
	stats->versions_skipped = progress->versions_skipped;
	stats->bytes_used = run->used_bytes;
	stats->commits = run->n_commits;
	stats->committed_seq = run->number ? progress->last_seq : 0;
	stats->last_commit_ns = run->last_commit_ns;
	show(recorder);
	recorder->hurry = false;
	pthread_cond_broadcast(&recorder->changed);
	pthread_mutex_unlock(&recorder->mutex);
}

static void close_file(struct memwatch_recorder *recorder)
{
	recorder_vfs_enter();
	db_close(&recorder->run.db);
	recorder_vfs_leave();
}

/* This thread's sentence becomes the message. A file that was moved away or damaged is opened anew. */
static void fail(struct memwatch_recorder *recorder, int error)
{
	pthread_mutex_lock(&recorder->mutex);
	recorder->stats.errors++;
	snprintf(recorder->stats.message, sizeof recorder->stats.message, "%s", memwatch_recorder_error());
	pthread_mutex_unlock(&recorder->mutex);
	if (recorder->run.db.handle && (error == -ESTALE || error == -EBADMSG)) {
		close_file(recorder);
		if (error == -EBADMSG)
			db_move_aside(recorder->path);
	}
	publish(recorder, "failing");
}

static bool is_stopping(struct memwatch_recorder *recorder)
{
	pthread_mutex_lock(&recorder->mutex);
	bool stopping = recorder->stopping;
	pthread_mutex_unlock(&recorder->mutex);
	return stopping;
}

/* Waits that long, or until it is to stop. */
static void pause_ms(struct memwatch_recorder *recorder, uint64_t ms)
{
	uint64_t deadline_ms = now_ms() + ms;
	pthread_mutex_lock(&recorder->mutex);
	while (!recorder->stopping && wait_until(recorder, deadline_ms))
		;
	pthread_mutex_unlock(&recorder->mutex);
}

/* --- transactions --- */

/* What is done in one; `n_events` of those that are pending are recorded. Inside recorder_vfs_enter. */
typedef int work_fn(struct memwatch_recorder *recorder, unsigned *n_events);

static uint64_t transaction_max_bytes(const struct run *run)
{
	uint64_t share = run->max_bytes / TRANSACTION_SHARE;
	return share < TRANSACTION_MAX_BYTES ? share : TRANSACTION_MAX_BYTES;
}

/* Forks may come between the slices. */
static int write_events(struct memwatch_recorder *recorder, unsigned *n_events)
{
	struct run *run = &recorder->run;
	unsigned n = 0;
	int error = 0;
	for (; !error && n < recorder->n_pending && run->new_bytes <= transaction_max_bytes(run); n++) {
		if (n % SLICE == SLICE - 1) {
			recorder_vfs_leave();
			recorder_vfs_enter();
		}
		error = run_add(run, recorder->pending[n]);
	}
	*n_events = n;
	return error ? error : run_end(run, FULL_PERCENT);
}

static int make_room(struct memwatch_recorder *recorder, unsigned *n_events)
{
	(void)n_events;
	return run_end(&recorder->run, SPARSE_PERCENT);
}

static int begin_run(struct memwatch_recorder *recorder, unsigned *n_events)
{
	(void)n_events;
	int error = run_begin(&recorder->run, recorder->options.keep_runs);
	return error ? error : run_end(&recorder->run, FULL_PERCENT);
}

/* Runs a statement that readers may hold up for a while. */
static int insist(struct memwatch_recorder *recorder, const char *sql)
{
	int error;
	for (unsigned i = 0; (error = db_run(&recorder->run.db, sql, "")) == -EBUSY && i < BUSY_TRIES; i++) {
		recorder_vfs_leave();
		nanosleep(&(struct timespec){ 0, BUSY_MS * 1000000 }, NULL); /* also when it is to stop */
		recorder_vfs_enter();
	}
	return error;
}

/* One that failed leaves no trace in `run`. */
static int transact(struct memwatch_recorder *recorder, work_fn *work, unsigned *n_events)
{
	struct run *run = &recorder->run;
	recorder_vfs_enter();
	int error = insist(recorder, "BEGIN IMMEDIATE");
	run->last_commit_ns = clock_ns(CLOCK_REALTIME);
	if (!error) {
		error = work(recorder, n_events);
		if (!error)
			error = insist(recorder, "COMMIT");
		if (error)
			sqlite3_exec(run->db.handle, "ROLLBACK", NULL, NULL, NULL);
	}
	if (error)
		run_undo(run);
	else
		run_committed(run);
	recorder_vfs_leave();
	return error;
}

/* --- the file --- */

static int open_file(struct memwatch_recorder *recorder)
{
	struct run *run = &recorder->run;
	unsigned none = 0;
	run_reset(run, run->committed.last_seq);
	run->start_ns = clock_ns(CLOCK_REALTIME);
	recorder_vfs_enter();
	int error = db_open(&run->db, recorder->path, run->max_bytes, recorder->options.sync);
	recorder_vfs_leave();
	if (!error) {
		error = transact(recorder, begin_run, &none);
		if (error) {
			run->number = 0;
			close_file(recorder);
		}
	}
	if (error)
		fail(recorder, error);
	else
		publish(recorder, "recording");
	return error;
}

/* --- the thread --- */

static bool is_hurried(struct memwatch_recorder *recorder)
{
	pthread_mutex_lock(&recorder->mutex);
	bool hurried = recorder->stopping || recorder->hurry;
	pthread_mutex_unlock(&recorder->mutex);
	return hurried;
}

static int read_more(struct memwatch_recorder *recorder, int timeout_ms)
{
	int n = memwatch_sink_read(recorder->sink, recorder->pending + recorder->n_pending,
				   PENDING_MAX - recorder->n_pending, timeout_ms);
	if (n < 0)
		recorder->ended = true;
	else
		recorder->n_pending += (unsigned)n;
	return n;
}

/* How much longer an event may wait for its commit. One from the future (a clock was set back) waits the whole time. */
static uint64_t patience_ms(const struct memwatch_recorder *recorder, const struct memwatch_event *event)
{
	uint64_t now_ns = clock_ns(CLOCK_REALTIME), limit_ms = recorder->options.commit_ms;
	uint64_t waited_ms = now_ns > event->detected_ns ? (now_ns - event->detected_ns) / 1000000u : 0;
	return waited_ms < limit_ms ? limit_ms - waited_ms : 0;
}

/* Waits for an event, then collects what comes until it has to be committed. */
static void gather(struct memwatch_recorder *recorder)
{
	if (read_more(recorder, is_hurried(recorder) ? 0 : -1) <= 0)
		return;
	uint64_t deadline_ms = now_ms() + patience_ms(recorder, recorder->pending[0]);
	while (recorder->n_pending < PENDING_MAX) {
		uint64_t now = now_ms();
		bool waits = now < deadline_ms && !is_hurried(recorder);
		if (read_more(recorder, waits ? (int)(deadline_ms - now) : 0) <= 0 && !(waits && !recorder->ended))
			return;
	}
}

static void release(struct memwatch_recorder *recorder, unsigned n, uint64_t duration_ns)
{
	for (unsigned i = 0; i < n; i++) {
		memwatch_sink_report(recorder->sink, duration_ns / n, 0);
		memwatch_event_unref(recorder->pending[i]);
	}
	recorder->n_pending -= n;
	memmove(recorder->pending, recorder->pending + n, recorder->n_pending * sizeof recorder->pending[0]);
}

/* Commits what is pending, in as many transactions as it takes. */
static int commit(struct memwatch_recorder *recorder)
{
	while (recorder->n_pending) {
		uint64_t start_ns = clock_ns(CLOCK_MONOTONIC);
		unsigned n_done = 0;
		int error = transact(recorder, write_events, &n_done);
		if (error == -ENOBUFS && !transact(recorder, make_room, &n_done))
			error = transact(recorder, write_events, &n_done);
		if (error) {
			fail(recorder, error);
			return error;
		}
		release(recorder, n_done, clock_ns(CLOCK_MONOTONIC) - start_ns);
		publish(recorder, "recording");
	}
	publish(recorder, "recording");
	return 0;
}

/* One turn. False: that was the last one. */
static bool turn(struct memwatch_recorder *recorder)
{
	bool last = is_stopping(recorder);
	if (!recorder->run.db.handle && open_file(recorder) < 0) {
		if (!last)
			pause_ms(recorder, RETRY_MS);
		return !last;
	}
	if (!recorder->n_pending)
		gather(recorder);
	bool empty = !recorder->n_pending;
	if (commit(recorder) < 0) {
		if (!last)
			pause_ms(recorder, RETRY_MS);
		return !last;
	}
	return !(empty && (last || recorder->ended));
}

static void finish(struct memwatch_recorder *recorder)
{
	unsigned none = 0;
	if (recorder->run.db.handle) {
		recorder->run.end_ns = clock_ns(CLOCK_REALTIME);
		int error = transact(recorder, make_room, &none);
		if (error)
			fail(recorder, error);
	}
	close_file(recorder);
	while (recorder->n_pending)
		memwatch_event_unref(recorder->pending[--recorder->n_pending]);
	publish(recorder, "stopped");
}

static void *record(void *arg)
{
	struct memwatch_recorder *recorder = arg;
	memwatch_thread_own();
	while (turn(recorder))
		;
	finish(recorder);
	return NULL;
}

/* --- opening and closing --- */

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
	int error = pthread_create(&recorder->thread, &attr, record, recorder);
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
	uint64_t newest = 0, deadline_ms = now_ms() + (uint64_t)(timeout_ms < 0 ? INT_MAX : timeout_ms);
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
			in_time = wait_until(recorder, deadline_ms);
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
