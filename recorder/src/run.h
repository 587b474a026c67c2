/*
 * run.h -- writes a run: see run.c. The recorder's thread, inside recorder_vfs_enter and _leave.
 */
#ifndef RECORDER_RUN_H
#define RECORDER_RUN_H

#include "run_state.h"

/* In a transaction: begins a run in the file, deletes runs beyond `keep_runs` (0: none). */
int run_begin(struct run *run, uint32_t keep_runs);
/* In a transaction: records one event. */
int run_add(struct run *run, const struct memwatch_event *event);
/* In a transaction: counts what came up to that one as missed. */
int run_miss(struct run *run, uint64_t seq);
/* In a transaction, before its commit: makes room and brings the run's own row up to date. */
int run_end(struct run *run, unsigned percent);
/* After the transaction: it happened, or did not. */
void run_committed(struct run *run);
void run_undo(struct run *run);
/* Forgets what is known of the file; `last_seq`: what is recorded or given up. */
void run_reset(struct run *run, uint64_t last_seq);
void run_fini(struct run *run);

#endif
