/*
 * writer.h -- a run being written: what the recorder's thread knows of it. Everything here runs on that thread, inside a write
 * transaction.
 */
#ifndef WRITER_H
#define WRITER_H

#include "table.h"

/* A region of this run; a copy of its record, or newer than that. */
struct known {
	struct known *next;
	uint64_t id;
	bool changed;
	struct codec_region region;
};

enum { KNOWN_BUCKETS = 4096, KNOWN_MAX = 4096 };

/* What a transaction changes, so that one that failed can be undone. */
struct progress {
	struct codec_run record;
	uint64_t start_seq;         /* what was before is not known */
	uint64_t last_seq;          /* recorded or missed up to here */
	uint64_t gap_last;          /* of the last gap, 0: none */
	uint64_t other_bases_bytes; /* of older runs */
	uint64_t events_evicted;    /* of all runs */
	uint64_t versions_written, versions_skipped;
	uint64_t n_known; /* entries in `known` */
};

struct writer {
	memwatch *watcher;
	uint32_t run; /* 0: not begun in this file */
	uint64_t max_bytes;
	struct progress progress;
	struct table table;  /* of the transaction under way */
	uint64_t new_bytes;  /* stored in this transaction */
	uint64_t used_bytes; /* of the file, after the last one */
	struct known *known[KNOWN_BUCKETS];
	struct out record, patch, scratch, chunk;
	uint8_t *value; /* room for a region's whole value */
	size_t value_capacity;
};

/* --- writer.c --- */

/* Begins a run in the file: deletes runs beyond `keep_runs`, numbers this one. `writer->progress.record` is filled in by the caller. */
int writer_begin(struct writer *writer, uint32_t keep_runs);
/* Records one event; `writer->table` is open. */
int writer_add(struct writer *writer, const struct memwatch_event *event);
/* Writes what changed of regions and of the run. */
int writer_end(struct writer *writer);
/* After a transaction that failed: nothing of it is remembered. */
void writer_undo(struct writer *writer, const struct progress *before);
/* After a commit: gives large buffers back. */
void writer_trim(struct writer *writer);
void writer_fini(struct writer *writer);

/* The region of that id in this run; -ENOENT when it has no record. */
int writer_known(struct writer *writer, uint64_t id, struct known **ret_known);
void writer_forget(struct writer *writer, uint64_t id);

/* --- chain.c --- */

/* Records what an event did to its region's value. */
int chain_add(struct writer *writer, struct known *known, const struct memwatch_event *event);

/* --- evict.c --- */

/* Deletes the oldest events, and what only they need, until the file is as empty as it should be before a commit. */
int evict(struct writer *writer, unsigned percent);
/* Deletes the oldest run, if that is not this one. 1, 0 when there is none. */
int evict_run(struct writer *writer);

#endif
