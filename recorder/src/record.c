/*
 * record.c -- DESIGN: one thread, "memwatch-record", reads a sink and commits what it read in one transaction a
 * commit interval. It owns the file and everything in `run`; other threads see the stats, under the mutex.
 *
 * Loss: events are released only once they are committed. While the file cannot be had the thread does not read on: the
 * watcher's log keeps the events as far as it reaches, and what it evicts meanwhile shows as a gap in seq, which is
 * recorded as one. Each failure is counted and its sentence kept; a second later it is tried again. Neither the
 * watcher's worker nor any thread of the host ever waits for the file.
 *
 * An event that SQLite refuses, or for which the file is too small, would be refused again. Others that came with it
 * are recorded without it, which halves find. It is missed: a gap in seq, after which values are taken anew.
 */
#define _GNU_SOURCE
#include "record.h"

#include "error.h"
#include "run.h"
#include "vfs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
	SLICE = 64, /* events that are added while a fork has to wait */
	RETRY_MS = 1000,
	BUSY_MS = 10,           /* until a commit that a reader holds up is tried again, */
	BUSY_TRIES = 100,       /* and how often before that counts as a failure */
	TRANSACTION_SHARE = 16, /* of the file: what one transaction may add */
	TRANSACTION_MAX_BYTES = 8 << 20,
	FULL_PERCENT = 90,   /* of the file in use; the next transaction needs the rest */
	SPARSE_PERCENT = 70, /* when that did not do */
	EMPTY_PERCENT = 40   /* when one event alone needs more: what its values may take is half of the file */
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t record_now_ms(void)
{
	return clock_ns(CLOCK_MONOTONIC) / 1000000u;
}

bool record_wait_until(struct memwatch_recorder *recorder, uint64_t deadline_ms)
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

/* This thread's sentence becomes the message. */
static void count_error(struct memwatch_recorder *recorder)
{
	pthread_mutex_lock(&recorder->mutex);
	recorder->stats.errors++;
	snprintf(recorder->stats.message, sizeof recorder->stats.message, "%s", memwatch_recorder_error());
	pthread_mutex_unlock(&recorder->mutex);
}

/* A file that was moved away or damaged is opened anew. */
static void fail(struct memwatch_recorder *recorder, int error)
{
	count_error(recorder);
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
	uint64_t deadline_ms = record_now_ms() + ms;
	pthread_mutex_lock(&recorder->mutex);
	while (!recorder->stopping && record_wait_until(recorder, deadline_ms))
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
	unsigned n = 0, n_most = recorder->n_pending < recorder->n_at_once ? recorder->n_pending : recorder->n_at_once;
	int error = 0;
	for (; !error && n < n_most && run->new_bytes <= transaction_max_bytes(run); n++) {
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
	return run_end(&recorder->run, recorder->percent);
}

static int miss_event(struct memwatch_recorder *recorder, unsigned *n_events)
{
	int error = run_miss(&recorder->run, recorder->pending[0]->seq);
	*n_events = 1;
	return error ? error : run_end(&recorder->run, FULL_PERCENT);
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
				   RECORD_PENDING_MAX - recorder->n_pending, timeout_ms);
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
	uint64_t deadline_ms = record_now_ms() + patience_ms(recorder, recorder->pending[0]);
	while (recorder->n_pending < RECORD_PENDING_MAX) {
		uint64_t now = record_now_ms();
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

/* Whether it is the events that cannot be recorded: the file can be written, or will never have more room. */
static bool is_of_events(int error)
{
	return error == -EINVAL || error == -ENOBUFS;
}

/* `n_tried`: of a failure, the event that failed is among so many. */
static int write_or_make_room(struct memwatch_recorder *recorder, unsigned *n_tried)
{
	unsigned none = 0;
	int error = transact(recorder, write_events, n_tried);
	if (error != -ENOBUFS)
		return error;
	recorder->percent = *n_tried > 1 ? SPARSE_PERCENT : EMPTY_PERCENT;
	error = transact(recorder, make_room, &none);
	return error ? error : transact(recorder, write_events, n_tried);
}

/* The first one cannot be recorded; this thread's sentence says why. */
static int give_up(struct memwatch_recorder *recorder, unsigned *n_done)
{
	const struct memwatch_event *event = recorder->pending[0];
	char why[300], name[128];
	snprintf(why, sizeof why, "%s", memwatch_recorder_error());
	memwatch_text_clean(event->name, name, sizeof name);
	int error = transact(recorder, miss_event, n_done);
	if (error)
		return error;
	recorder_error_set(0, "event %llu of %s is not recorded: %s", (unsigned long long)event->seq, name, why);
	count_error(recorder);
	return 0;
}

/* Commits some of what is pending. */
static int commit_some(struct memwatch_recorder *recorder)
{
	uint64_t start_ns = clock_ns(CLOCK_MONOTONIC);
	unsigned n_done = 0;
	int error = write_or_make_room(recorder, &n_done);
	if (is_of_events(error) && n_done > 1) {
		recorder->n_at_once = n_done / 2;
		return 0;
	}
	if (is_of_events(error)) {
		error = give_up(recorder, &n_done);
		recorder->n_at_once = RECORD_PENDING_MAX;
	}
	if (!error)
		release(recorder, n_done, clock_ns(CLOCK_MONOTONIC) - start_ns);
	return error;
}

/* Commits what is pending, in as many transactions as it takes. */
static int commit(struct memwatch_recorder *recorder)
{
	int error = 0;
	recorder->n_at_once = RECORD_PENDING_MAX;
	while (recorder->n_pending && !error) {
		error = commit_some(recorder);
		if (!error)
			publish(recorder, "recording");
	}
	if (error)
		fail(recorder, error);
	else
		publish(recorder, "recording");
	return error;
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
		recorder->percent = FULL_PERCENT;
		int error = transact(recorder, make_room, &none);
		if (error)
			fail(recorder, error);
	}
	close_file(recorder);
	while (recorder->n_pending)
		memwatch_event_unref(recorder->pending[--recorder->n_pending]);
	publish(recorder, "stopped");
}

void *record_run(void *arg)
{
	struct memwatch_recorder *recorder = arg;
	memwatch_thread_own();
	while (turn(recorder))
		;
	finish(recorder);
	return NULL;
}
