/*
 * region.h -- the regions of all watchers: a slab of small records, a treap over addresses, a table of names.
 *
 *   who may run together    nothing: everything here is called under the engine's lock
 *
 * A million regions: finding those that hold a page, adding and removing take O(log n).
 */
#ifndef REGION_H
#define REGION_H

#include "number.h"

enum {
	REGION_PENDING = 1 << 4, /* its pages were collected, it has not been diffed yet */
	REGION_LOST = 1 << 5,    /* its memory vanished; it is listed until it is removed */
	REGION_POLLED = 1 << 6,  /* some of its pages are polled for want of something better */
	REGION_WRITTEN = 1 << 7, /* in this pass: a page was written, not just polled */
	REGIONS_MAX = (1 << 24) - 1,
	REGION_CHUNK = 1024
};

/* What a region needs once it has changed, or when it is typed, conditional or bounded. */
struct region_meta {
	uint64_t last_seq, last_time_ns;
	uint64_t coalesced, filtered, dropped;
	struct undo *newest_undo, *oldest_undo; /* its versions in the history, see history.c */
	uint64_t history_bytes, history_budget; /* 0: no budget of its own */
	uint64_t unreported;                    /* changes since the last event, kept or not: filtered or held back */
	struct event *held;                     /* max_rate: the event that waits, it counts as coalesced meanwhile */
	uint64_t interval_ns, due_ns;           /* max_rate: between events; when the next may go (CLOCK_MONOTONIC) */
	double low, high;                       /* of `when` */
	uint8_t when;                           /* enum memwatch_when */
	uint8_t metric : 1, number : 2, swapped : 1; /* the last two: see region_number */
	uint8_t fortran_order, n_dims;
	uint32_t item_bytes;
	char *format;    /* or NULL */
	uint64_t *shape; /* n_dims extents, or NULL */
};

/* Stands before the name's text: since when the region is watched. */
struct region_birth {
	uint64_t time_ns, seq; /* CLOCK_REALTIME; the watcher's newest event then */
};

struct region {
	uint64_t start, size_bytes;
	uint64_t max_end;          /* of its subtree */
	uint32_t left, right;      /* slots in the treap, 0: none */
	uint32_t generation, slot; /* its id: a slot that is used again has another generation */
	uint8_t watcher;           /* index into the engine's watchers */
	uint8_t backend;           /* enum backend_id that most of its pages have */
	uint8_t flags;             /* MEMWATCH_REGION_*, REGION_* */
	uint8_t values;            /* enum memwatch_values */
	uint8_t precise;           /* enum memwatch_precise */
	uint8_t point;             /* 1 + its slot among those with a watchpoint, 0: none */
	uint8_t *shadow;           /* its bytes; of MEMWATCH_REGION_HASHED a uint64_t a page; NULL without memory */
	char *name;                /* NULL: the slot is free; behind a struct region_birth */
	struct region_meta *meta;  /* NULL: a plain region that never changed */
	uint64_t detected, delivered, unchanged;
};
static_assert(sizeof(struct region) <= 96, "a million regions take less than 100 MB");

struct regions {
	struct region **chunks;
	uint32_t n_slots; /* slots ever used, from 1 */
	uint32_t n_chunks;
	uint32_t free; /* list of free slots through `left` */
	uint32_t root;
	uint32_t n_used;
	uint32_t *names; /* hash table of slots, by watcher and name */
	uint32_t names_size, names_filled;
};

int regions_init(struct regions *regions);
void regions_fini(struct regions *regions);

/* A new record, not in the treap yet, named; -EEXIST, -ENOMEM, -ENOSPC. */
int region_new(struct regions *regions, uint8_t watcher, const char *name, struct region **ret_region);
/* Its meta, made when it has none; NULL without memory. */
struct region_meta *region_meta(struct region *region);
void region_meta_free(struct region_meta *meta);
/* Frees a record with its name, shadow and meta; it must not be in the treap and have no history. */
void region_free(struct regions *regions, struct region *region);
void region_insert(struct regions *regions, struct region *region);
void region_erase(struct regions *regions, struct region *region);

uint64_t region_id(const struct region *region);
/* NULL when there is none of that id (and watcher). */
struct region *region_by_id(const struct regions *regions, uint64_t id, uint8_t watcher);
/* Did a region that was removed have that id? */
bool region_was(const struct regions *regions, uint64_t id);
struct region *region_by_name(const struct regions *regions, const char *name, uint8_t watcher);
/* The used record at or after `slot` (from 1), or NULL. */
struct region *region_next(const struct regions *regions, uint32_t slot, uint32_t *ret_slot);

/* Calls `visit` for each region in the treap that holds bytes of [start, end), in order of start. It must not change the treap. */
typedef void region_visit(struct region *region, void *arg);
void region_overlapping(const struct regions *regions, uint64_t start, uint64_t end, region_visit *visit, void *arg);
bool region_any(const struct regions *regions, uint64_t start, uint64_t end);

static inline struct region_birth *region_birth(const struct region *region)
{
	return (struct region_birth *)(void *)region->name - 1;
}

/* How its elements are read as numbers; of kind NONE when they are none. */
static inline struct number region_number(const struct region *region)
{
	const struct region_meta *meta = region->meta;
	if (!meta)
		return (struct number){ .kind = MEMWATCH_NUMBER_NONE };
	return (struct number){ .kind = meta->number, .item_bytes = meta->item_bytes, .swapped = meta->swapped };
}

static inline uint64_t region_last_seq(const struct region *region)
{
	return region->meta ? region->meta->last_seq : 0;
}

static inline uint64_t region_end(const struct region *region)
{
	return region->start + region->size_bytes;
}

#endif
