/*
 * recorder.h -- a flight recorder: keeps a watcher's events and the values' versions in a file, so that they can be read
 * when the process is gone.
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
 * THE FILE is an LMDB database of one process at a time, with a lock file beside it (path + "-lock"), both mode 0600. It
 * keeps several runs, each with a numbering of its own. It never grows past `max_bytes`: the oldest events leave first. It
 * has its full length from the start, as a hole: `du` tells what it takes. Local file systems only.
 *
 * WHAT IS KEPT is what events carry: a region's policy holds here too. After the watched process was killed, everything
 * up to the last commit is readable.
 *
 * TROUBLE (a full disk, a path that cannot be written, a damaged file, one that another process records to) never reaches the
 * watched program: it is counted and told by memwatch_recorder_stats_get, and tried again every second. Meanwhile the
 * watcher's log keeps the events, as far as it reaches; what left it is counted as missed. A file that is damaged or is
 * no recording is never changed.
 *
 * LIMITS      A region's values can be loaded when it has at most an eighth of `max_bytes` (and 64 MiB); of a larger one the written
 *             bytes are kept without a base. While a disk fails to read what the file maps (not: is full), or another program
 *             shortens the file between two commits' checks, the process may get SIGBUS, as with any mapped file.
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
};

MEMWATCH_API void memwatch_recorder_options_init(struct memwatch_recorder_options *options);

/*
 * Starts to record: a sink "recorder" and a thread of its own, which opens the file. -EINVAL, -ENOMEM, -ECHILD; whether
 * the file could be opened is told by the stats. The watcher must outlive the recorder.
 */
MEMWATCH_API int memwatch_recorder_open(memwatch *watcher, const struct memwatch_recorder_options *options,
					memwatch_recorder **ret_recorder);

/*
 * Waits until every event that is in the log now is committed. 0, or -ETIMEDOUT. Blocks.
 */
MEMWATCH_API int memwatch_recorder_flush(memwatch_recorder *recorder, int timeout_ms);

/* Records what is in the log, marks the run as ended, closes the file. NULL is allowed; in a forked child it does nothing. Blocks. */
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

MEMWATCH_API int memwatch_recorder_stats_get(memwatch_recorder *recorder, struct memwatch_recorder_stats *ret_stats);

/* --- reading ---------------------------------------------------------------------------------------------------- */

typedef struct memwatch_recording memwatch_recording;

/*
 * Opens a file to read, also while it is being written. -ENOENT, -EACCES, -EBADMSG damaged, -EPROTO no recording or one of
 * another version. Reads the structure of the whole file once. Handles may be used from any thread, but not after a fork.
 */
MEMWATCH_API int memwatch_recording_open(const char *path, memwatch_recording **ret_recording);

/* NULL is allowed. */
MEMWATCH_API void memwatch_recording_close(memwatch_recording *recording);

/* One run of a recorder. */
struct memwatch_recording_run {
	uint32_t run;   /* from 1 */
	uint64_t epoch; /* the watcher's */
	int32_t pid;
	char program[64], host[64];
	uint64_t start_ns, end_ns; /* CLOCK_REALTIME; end_ns 0: it goes on, or it was killed */
	uint64_t last_commit_ns;
	uint64_t oldest_seq, newest_seq; /* of the events kept; 0: none */
	uint64_t events_written, events_evicted, events_missed;
	int live; /* a recorder writes it now */
};

/* Fills up to `n` infos of runs with a number above `after`, in order; returns how many. */
MEMWATCH_API int memwatch_recording_runs(memwatch_recording *recording, uint32_t after,
					 struct memwatch_recording_run *infos, size_t n);

/* One region of a run. */
struct memwatch_recording_region {
	uint32_t run;
	uint64_t id;
	char name[MEMWATCH_NAME_MAX + 1];
	char format[512]; /* "" for bytes and for longer formats */
	uint64_t size_bytes, item_bytes;
	uint32_t n_dims;
	uint64_t shape[MEMWATCH_DIMS_MAX];
	int fortran_order;
	enum memwatch_values values;
	uint64_t first_seq, last_seq, last_time_ns; /* of its events; the first may have been evicted */
	uint64_t oldest_value_seq; /* the oldest seq for which its value can be loaded; UINT64_MAX: none */
};

/* Fills up to `n` infos of the run's regions with ids above `after`; returns how many. */
MEMWATCH_API int memwatch_recording_regions(memwatch_recording *recording, uint32_t run, uint64_t after,
					    struct memwatch_recording_region *infos, size_t n);

/* Which events. */
struct memwatch_recording_query {
	size_t struct_bytes;         /* sizeof(struct memwatch_recording_query) */
	uint32_t run;                /* 0: all */
	uint64_t since_ns, until_ns; /* time_ns from and up to; 0: no limit */
	const char *name;            /* a glob as of fnmatch(3), NULL: all */
};

/* Where a reader stands: after this event. Zero: at the beginning. */
struct memwatch_recording_position {
	uint32_t run;
	uint64_t seq;
};

/*
 * An event that was read back. As the watcher made it, but for the values: old_value, new_value and patch are NULL (see
 * memwatch_recording_value), previews have at most 256 bytes, and `had_values` says that it carried the values themselves.
 */
struct memwatch_recorded {
	uint32_t run;
	int had_values;
	struct memwatch_event event;
};

/*
 * Reads up to `n` events after `*position`, in order of run and seq, and moves the position. Each is freed by memwatch_recorded_free.
 * Returns how many; 0 at the end (of what is committed). Events whose record is damaged are left out.
 */
MEMWATCH_API int memwatch_recording_read(memwatch_recording *recording, const struct memwatch_recording_query *query,
					 struct memwatch_recording_position *position,
					 struct memwatch_recorded **events, size_t n);
MEMWATCH_API void memwatch_recorded_free(struct memwatch_recorded *event); /* NULL is allowed */

/*
 * Finds the region that had a name, and its version, at a time or a seq: `seq` or else `time_ns` is not 0 (neither: the newest).
 * Run 0: the newest run in which the name is found. -ENOENT, with the oldest kept.
 */
struct memwatch_recording_version {
	uint32_t run;
	uint64_t region_id, seq;
};
MEMWATCH_API int memwatch_recording_find(memwatch_recording *recording, uint32_t run, const char *name, uint64_t seq,
					 uint64_t time_ns, struct memwatch_recording_version *ret_version);

/*
 * Copies up to `size` bytes of the value that a region had after event `seq` (any seq: the region's last event up to it counts;
 * before its first event it had what that found, back to when it was watched or the run began).
 * Returns the whole size. -ENOENT no such region, or not kept (the sentence says why, and the oldest kept); -ENODATA it had no
 * value then; -EACCES its policy is not full; -EBADMSG damaged.
 */
MEMWATCH_API int64_t memwatch_recording_value(memwatch_recording *recording, uint32_t run, uint64_t region_id,
					      uint64_t seq, void *buffer, size_t size);

#ifdef __cplusplus
}
#endif
#endif
