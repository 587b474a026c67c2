/*
 * evict.h -- makes room in the file.
 */
#ifndef RECORDER_EVICT_H
#define RECORDER_EVICT_H

#include "run_state.h"

/* Deletes the oldest events, and what only they need, until at most `percent` of the file are in use. */
int evict_until(struct run *run, unsigned percent);
/* Deletes the oldest run, if that is not this one. 1, 0 when there is none. */
int evict_oldest_run(struct run *run);
/* Deletes all runs but the newest `keep`. */
int evict_runs_beyond(struct run *run, uint32_t keep);
/* Counts the bytes that the bases of all runs take. */
int evict_count_bases(struct run *run);

#endif
