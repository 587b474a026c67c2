/*
 * history.h -- older versions, as an undo log: each change keeps the bytes that it overwrote; a version is the shadow
 * with the newer records applied backwards. Under the engine's lock.
 */
#ifndef HISTORY_H
#define HISTORY_H

#include "../base/event.h"
#include "../base/region.h"
#include "diff.h"

struct undo {
	struct undo *newer, *older; /* of the watcher */
	struct undo *region_newer, *region_older;
	struct region_meta *meta; /* whose it is */
	struct event *event;      /* a reference; NULL while the change has no event: filtered or held back */
	uint64_t seq, before_seq; /* the event and the version before it; without event both are the latter */
	size_t n_bytes;
	uint8_t *bytes; /* runs: struct undo_run, then its bytes */
};

struct history {
	struct undo *newest, *oldest;
	uint64_t bytes, budget, n_versions, n_evicted;
};

/* Keeps what the diff found, without an event yet. Evicts the oldest past the budgets. Needs region->meta. */
void history_add(struct history *history, struct region *region, struct diff *diff);
/* Evicts until `n_bytes` more fit into the budget. */
void history_make_room(struct history *history, size_t n_bytes);
/*
 * The region's newest record but for `n_behind` is what `event` tells; to be called before region->meta->last_seq
 * becomes the event's.
 */
void history_name(struct history *history, struct region *region, struct event *event, uint64_t n_behind);
/* Forgets a region's versions. */
void history_forget(struct history *history, struct region *region);
void history_fini(struct history *history);

/* Is the version still there? */
bool history_has(const struct region *region, uint64_t seq);
/* Is it there, or was it? What is older than the oldest kept is not told apart. */
bool history_had(const struct region *region, uint64_t seq);
/* The version in force after the event `seq`: of the last event up to it. 0 or -ENOENT with a sentence. */
int history_version(const struct region *region, uint64_t seq, uint64_t *ret_seq);
/*
 * Copies the first `size` bytes of the version that the event `seq` made (0: the first). 0 or -ENOENT with a sentence.
 */
int history_load(const struct region *region, uint64_t seq, uint8_t *buffer, size_t size);

/* See memwatch_blame. `work` has room for twice size_bytes. */
int history_blame(const struct region *region, uint64_t offset, uint64_t size_bytes, uint8_t *work,
		  struct memwatch_blame *blames, size_t n, size_t struct_bytes);

void history_key(uint64_t region_id, uint64_t seq, char ret_key[MEMWATCH_KEY_SIZE]);
int history_key_parse(const char *key, uint64_t *ret_region_id, uint64_t *ret_seq);

#endif
