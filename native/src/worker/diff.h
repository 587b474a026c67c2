/*
 * diff.h -- which bytes of a region differ from its shadow; brings the shadow up to date and keeps what was
 * overwritten.
 */
#ifndef DIFF_H
#define DIFF_H

#include "../base/base.h"

enum {
	DIFF_BLOCK = 64,
	DIFF_KEPT = 64 /* changed blocks whose old bytes are kept for the event, whatever becomes of the undo */
};

/* One run of overwritten bytes, followed by them, in a diff's `undo`. */
struct undo_run {
	uint64_t offset, size_bytes;
};

/* What a block held that differs. */
struct diff_block {
	uint64_t offset;
	uint32_t size_bytes;
	uint8_t old[DIFF_BLOCK];
};

/* What one pass found in one region; reused from region to region. */
struct diff {
	struct memwatch_range ranges[MEMWATCH_CHANGES_MAX]; /* exact; when there are more, the last spans the rest */
	uint32_t n_ranges;
	uint64_t changed_bytes;
	uint8_t *undo; /* runs of whole blocks */
	size_t undo_bytes, undo_capacity;
	size_t undo_max;                              /* beyond that the old bytes are given up */
	size_t undo_keep;                             /* a larger buffer does not stay */
	void (*make_room)(void *arg, size_t n_bytes); /* the undo is about to take that much */
	void *make_room_arg;
	bool undo_lost;
	size_t open_run;                   /* where in `undo` the last run begins, SIZE_MAX: there is none */
	struct undo_run run;               /* that run */
	struct diff_block kept[DIFF_KEPT]; /* the first, in order */
	uint32_t n_kept;
	uint64_t lost_from; /* where the first changed block is that is not among them */
	size_t (*equal_blocks)(const uint8_t *a, const uint8_t *b, size_t n); /* that, or as fast as this CPU can */
};

/* How many bytes from the start are equal, in whole blocks: on every CPU. */
size_t diff_equal_blocks(const uint8_t *a, const uint8_t *b, size_t n);

void diff_init(struct diff *diff);
void diff_fini(struct diff *diff);
void diff_reset(struct diff *diff, size_t undo_max);
/* Overwrites the old bytes that it holds. */
void diff_erase(struct diff *diff);
/* Hands the undo over, as a block of its own; NULL without memory. */
uint8_t *diff_take_undo(struct diff *diff);

/*
 * Compares `n` bytes, which a region has at `offset`, with `shadow + offset`. They may change meanwhile: what goes to
 * the shadow is what was compared.
 */
void diff_bytes(struct diff *diff, const uint8_t *now, uint8_t *shadow, uint64_t offset, size_t n);

/* What `n` bytes were before the diff, up to `lost_from`; the shadow has what they are. */
void diff_old(const struct diff *diff, const uint8_t *shadow, uint64_t offset, size_t n, uint8_t *ret_old);

/* What will be compared after the next call: brings its beginning near. */
void diff_expect(const uint8_t *now, const uint8_t *shadow);

/* The same for a page of a region whose shadow is one XXH3 hash a page: when it differs it is a range as a whole. */
void diff_hashed(struct diff *diff, const uint8_t *now, uint64_t *hash, uint64_t offset, size_t n);

#endif
