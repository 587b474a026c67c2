/*
 * run_state.h -- a run being written: what the recorder's thread knows of it. Everything that changes it runs on that
 * thread, inside recorder_vfs_enter and _leave and a transaction.
 */
#ifndef RECORDER_RUN_STATE_H
#define RECORDER_RUN_STATE_H

#include "db.h"
#include "known.h"

#include <memwatch/recorder.h>

/* What a transaction changes, so that one that failed can be undone. */
struct run_progress {
	uint64_t last_seq;    /* recorded or missed up to here */
	uint64_t gap_seq;     /* the last that was missed, 0: none */
	uint64_t bases_bytes; /* of all runs */
	uint64_t events_written, events_missed, events_evicted;
	uint64_t versions_written, versions_skipped;
};

/* Memory that is used again. */
struct run_room {
	uint8_t *bytes;
	size_t capacity;
};

struct run {
	memwatch *watcher;
	struct db db;
	int64_t number; /* 0: not begun in this file */
	int64_t seq_offset, before_id;
	uint64_t start_seq, start_ns; /* what was before is not known */
	uint64_t end_ns;              /* 0: it goes on */
	uint64_t max_bytes, used_bytes;
	uint64_t last_commit_ns, n_commits;
	uint64_t new_bytes; /* about what this transaction added */
	struct run_progress now, committed;
	struct known_table variables, writers, locations;
	struct run_room before, after; /* for whole values */
};

static inline int64_t run_id_of(const struct run *run, uint64_t seq)
{
	return run->seq_offset + (int64_t)seq;
}

#endif
