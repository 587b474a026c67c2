/*
 * region.h -- the regions of all watchers: a slab of small records, a treap over addresses, a table of names.
 *
 *   who may run together    nothing: everything here is called under the engine's lock
 *
 * A million regions: finding those that hold a page, adding and removing take O(log n).
 */
#ifndef REGION_H
#define REGION_H

#include "layout.h"

enum {
	REGION_PENDING = 1 << 4, /* its pages were collected, it has not been diffed yet */
	REGION_LOST = 1 << 5,    /* its memory vanished; it is listed until it is removed */
	REGION_POLLED = 1 << 6,  /* some of its pages are polled for want of something better */
	REGION_WRITTEN = 1 << 7, /* in this pass: a page was written, not just polled */
	REGIONS_MAX = (1 << 24) - 1,
	REGION_CHUNK = 1024
};

/* What the watcher asked for beyond every change. */
struct region_rules {
	uint64_t history_budget;      /* 0: none of its own */
	struct event *held;           /* max_rate: the event that waits, it counts as coalesced meanwhile */
	struct event *behind;         /* the ranges of changes since, which `when` has filtered; NULL: none are known */
	uint64_t n_behind;            /* how many these are: the event that waits does not tell them */
	uint64_t n_told;              /* how many changes it tells */
	uint64_t interval_ns, due_ns; /* max_rate: between events; when the next may go (CLOCK_MONOTONIC) */
	double low, high;             /* of `when` */
	enum memwatch_when when;
};

/* What is known of a region's changes. */
struct region_meta {
	uint64_t last_seq, last_time_ns;
	uint64_t delivered, coalesced, filtered, dropped;
	struct undo *newest_undo, *oldest_undo; /* its versions in the history, see history.c */
	uint64_t history_bytes;
	uint64_t unreported;                /* changes since the last event, kept or not: filtered or held back */
	struct region_rules *rules;         /* or NULL */
	union memwatch_number_value posted; /* an external region's number: which member, region->posted says */
};
static_assert(sizeof(struct region_meta) <= 96, "a million regions that changed take less than 100 MB more");

struct region {
	uint64_t start, size_bytes;
	uint64_t max_end;     /* of its subtree */
	uint32_t left, right; /* slots in the treap, 0: none */
	uint32_t generation;  /* its id is this and the slot: a slot that is used again has another generation */
	uint32_t slot : 24;
	uint32_t watcher : 8; /* index into the engine's watchers */
	uint32_t layout;      /* number in `layouts` */
	uint8_t flags;        /* MEMWATCH_REGION_*, REGION_* */
	uint8_t values : 3;   /* enum memwatch_values */
	uint8_t precise : 3;  /* enum memwatch_precise */
	uint8_t metric : 1;
	uint8_t posted : 2;  /* enum memwatch_number, of an external region: what was posted last */
	uint8_t shared : 1;  /* others may write to its memory: see memory_is_shared */
	uint8_t backend : 4; /* 1 + the number of the open backend that it asked for, 0: its watcher's */
	uint8_t point;       /* 1 + its slot among those with a watchpoint, 0: none */
	/* its bytes; of MEMWATCH_REGION_HASHED a uint64_t a page; the name's text follows. NULL: free */
	uint8_t *shadow;
	struct region_meta *meta; /* NULL: no rules, and it never changed */
	uint64_t added_ns;        /* CLOCK_REALTIME */
	uint64_t added_seq;       /* the watcher's newest event then */
	uint64_t detected, unchanged;
};
static_assert(sizeof(struct region) == 96, "a million regions take less than 100 MB");

struct regions {
	struct region **chunks;
	uint32_t n_slots; /* slots ever used, from 1 */
	uint32_t n_chunks;
	uint32_t free; /* list of free slots through `left` */
	uint32_t root;
	uint32_t n_used;
	uint32_t *names; /* hash table of slots, by watcher and name */
	uint32_t names_size, names_filled;
	struct layouts layouts;
};

/* Regions to be looked at later. */
struct region_list {
	uint64_t *tickets;
	size_t n, capacity;
};

int regions_init(struct regions *regions);
void regions_fini(struct regions *regions);

/* The size of a region's shadow. */
uint64_t region_shadow_bytes(uint64_t start, uint64_t size_bytes, uint8_t flags);
/* Memory for a region's shadow and name, which region_new takes over; NULL without memory. */
uint8_t *region_shadow_new(uint64_t start, uint64_t size_bytes, uint8_t flags, const char *name);

/*
 * A new record, not in the treap yet, with start, size, flags, watcher and shadow of `given`; -EEXIST, -ENOMEM,
 * -ENOSPC.
 */
int region_new(struct regions *regions, const struct region *given, struct region **ret_region);
/* Its meta, made when it has none; NULL without memory. */
struct region_meta *region_meta(struct region *region);
void region_meta_free(struct region_meta *meta);
/* Frees a record with its shadow, layout and meta; it must not be in the treap and have no history. */
void region_free(struct regions *regions, struct region *region);
void region_insert(struct regions *regions, struct region *region);
void region_erase(struct regions *regions, struct region *region);

uint64_t region_id(const struct region *region);
/* NULL when there is none of that id (and watcher). */
struct region *region_by_id(const struct regions *regions, uint64_t id, uint8_t watcher);
/* Did a region that was removed have that id? */
bool region_was(const struct regions *regions, uint64_t id);
/* An id with its watcher, in one word: what lists of regions keep while regions may go. Never 0. */
uint64_t region_ticket(const struct region *region);
/* The region, or NULL when it is gone. */
struct region *region_by_ticket(const struct regions *regions, uint64_t ticket);
struct region *region_by_name(const struct regions *regions, const char *name, uint8_t watcher);
/* The used record at or after `slot` (from 1), or NULL. */
struct region *region_next(const struct regions *regions, uint32_t slot, uint32_t *ret_slot);

/* False without memory. */
bool region_list_add(struct region_list *list, const struct region *region);
void region_list_fini(struct region_list *list);

/*
 * Calls `visit` for each region in the treap that holds bytes of [start, end), in order of start. It must not change
 * the treap.
 */
typedef void region_visit(struct region *region, void *arg);
void region_overlapping(const struct regions *regions, uint64_t start, uint64_t end, region_visit *visit, void *arg);
bool region_any(const struct regions *regions, uint64_t start, uint64_t end);

static inline const struct layout *region_layout(const struct regions *regions, const struct region *region)
{
	return layout_at(&regions->layouts, region->layout);
}

/* What a numeric scalar holds whose values may be shown. Untouched when it is MEMWATCH_NUMBER_NONE. */
enum memwatch_number region_number(struct number number, const struct region *region,
				   union memwatch_number_value *ret_value);

/* The number that an external region holds now; it has a meta. */
void region_set_posted(struct region *region, const struct memwatch_scalar *number);

/* NULL: every change is an event. */
static inline struct region_rules *region_rules(const struct region *region)
{
	return region->meta ? region->meta->rules : NULL;
}

static inline uint64_t region_last_seq(const struct region *region)
{
	return region->meta ? region->meta->last_seq : 0;
}

static inline const char *region_name(const struct region *region)
{
	return (const char *)region->shadow + region_shadow_bytes(region->start, region->size_bytes, region->flags);
}

static inline uint64_t region_end(const struct region *region)
{
	return region->start + region->size_bytes;
}

#endif
