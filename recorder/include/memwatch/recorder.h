/*
 * recorder.h -- a flight recorder: keeps a watcher's events and the values' versions in a file, so that they can be
 * read when the process is gone.
 *
 *   struct memwatch_recorder_options options;
 *   memwatch_recorder_options_init(&options);
 *   options.path = "service.memwatch";
 *   memwatch_recorder_open(watcher, &options, &recorder);    // struct memwatch_options.patches should be 1
 *   ...
 *   memwatch_recorder_close(recorder);                       // before memwatch_close
 *
 * Link with -lmemwatch_recorder -lmemwatch. Errors as in memwatch.h: -errno, with a sentence from
 * memwatch_recorder_error().
 *
 * THE FILE is an SQLite database that any tool reads, also while it is written: `sqlite3 FILE "SELECT * FROM events"`.
 * Its tables and views are described in docs/recording.md; C programs read them with SQLite. One process at a time
 * records to it. It keeps several runs, each with a numbering of its own. It never grows past `max_bytes`: the oldest
 * events leave first. It is made with mode 0600. Local file systems only.
 *
 * WHAT IS KEPT is what events carry: a region's policy holds here too. After the watched process was killed, everything
 * up to the last commit is readable.
 *
 * TROUBLE (a full disk, a path that cannot be written, a file that another process records to, that was shortened or
 * removed) never reaches the watched program: it is counted and told by memwatch_recorder_stats_get, and tried again
 * every second. Meanwhile the watcher's log keeps the events, as far as it reaches; what left it is counted as missed.
 * So is an event that cannot be recorded though the file can be written: an error that names it, and the others go on.
 * A file that is no recording is never changed; a recording that is damaged is moved aside, to `path`.damaged.
 *
 * LIMITS      A region's values can be told when it has at most an eighth of `max_bytes` (and 64 MiB); of a larger one
 *             the written bytes are kept without a whole value.
 */
#ifndef MEMWATCH_RECORDER_H
#define MEMWATCH_RECORDER_H

#include <memwatch/memwatch.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The sentence of this thread's last failed call here. Never NULL. */
MEMWATCH_API const char *memwatch_recorder_error(void);

/* --- recording -------------------------------------------------------------------------------------------------- */

typedef struct memwatch_recorder memwatch_recorder;

struct memwatch_recorder_options {
	size_t struct_bytes; /* set by memwatch_recorder_options_init */
	const char *path;    /* the file; made when it is not there */
	uint64_t max_bytes;  /* 256 MiB; at least 1 MiB */
	uint32_t commit_ms;  /* 200; 1 to 1,000: how long an event may wait for its commit */
	uint32_t keep_runs;  /* 0: as many as fit; else older runs are deleted at the start */
	int sync;            /* 1: commits reach the disk; 0: they survive the process, but not a power failure */
	int reserved;        /* 0 */
};

/* Fills in the defaults. */
MEMWATCH_API void memwatch_recorder_options_init_sized(struct memwatch_recorder_options *options, size_t struct_bytes);
MEMWATCH_INLINE void memwatch_recorder_options_init(struct memwatch_recorder_options *options)
{
	memwatch_recorder_options_init_sized(options, sizeof(struct memwatch_recorder_options));
}

/*
 * Starts to record: a sink "recorder" and a thread of its own, which opens the file. -EINVAL, -ENOMEM, -ECHILD; whether
 * the file could be opened is told by the stats. Either may be closed first: see CALLS in memwatch.h.
 */
MEMWATCH_API int memwatch_recorder_open(memwatch *watcher, const struct memwatch_recorder_options *options,
					memwatch_recorder **ret_recorder);

/*
 * Waits until every event that is in the log now is committed. 0, or -ETIMEDOUT. Blocks.
 */
MEMWATCH_API int memwatch_recorder_flush(memwatch_recorder *recorder, int timeout_ms);

/*
 * Records what is in the log, marks the run as ended, closes the file. NULL is allowed; in a forked child it does
 * nothing. Blocks.
 */
MEMWATCH_API void memwatch_recorder_close(memwatch_recorder *recorder);

struct memwatch_recorder_stats {
	const char *state; /* "starting", "recording", "failing" (tries again), "stopped"; a constant */
	uint32_t run;      /* the number of this run in the file, 0: none yet */
	uint64_t events_written, events_missed, events_evicted;
	uint64_t versions_written;                       /* values and patches */
	uint64_t versions_skipped;                       /* values that could not be had, or were too large */
	uint64_t commits, committed_seq, last_commit_ns; /* CLOCK_REALTIME */
	uint64_t bytes_used, max_bytes;
	uint64_t errors;   /* attempts that failed */
	char message[512]; /* of the last of them, "" when there was none */
};

/* Fills in what was recorded, and what went wrong. 0, or -EINVAL. */
MEMWATCH_API int memwatch_recorder_stats_get_sized(memwatch_recorder *recorder,
						   struct memwatch_recorder_stats *ret_stats, size_t struct_bytes);
MEMWATCH_INLINE int memwatch_recorder_stats_get(memwatch_recorder *recorder, struct memwatch_recorder_stats *ret_stats)
{
	return memwatch_recorder_stats_get_sized(recorder, ret_stats, sizeof(struct memwatch_recorder_stats));
}

#ifdef __cplusplus
}
#endif
#endif
