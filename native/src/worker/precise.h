/*
 * precise.h -- regions with a hardware watchpoint: each write is a detection and, when it changed the value, an event of its own. All
 * under the engine's lock; what is not marked otherwise may run on any thread.
 */
#ifndef PRECISE_H
#define PRECISE_H

#include "../base/hits.h"
#include "../base/region.h"

struct engine;

/* A region that has a watchpoint. */
struct precise_slot {
	uint64_t region;  /* id, and above it its watcher; 0: free */
	uint32_t point;   /* the watchpoint's number */
	bool automatic;   /* lent: it can be taken back */
	bool fresh;       /* notes may explain what it finds first */
	bool blocked;     /* writes by threads that block SIGTRAP were found */
	bool due;         /* to be looked at again */
	struct hit *hits; /* not yet told, ordered by n; the worker's */
	uint32_t n_hits, capacity;
	uint64_t next;                    /* the n of the next hit to be told */
	uint64_t received;                /* from the ring */
	uint64_t missed;                  /* writes that no event has told yet */
	uint64_t balance;                 /* writes counted less hits, when nothing was on its way */
	uint64_t odd_least, odd_since_ns; /* the same while it is more than the balance; since 0: it is not */
	unsigned n_odd;                   /* how often it was seen so */
	uint64_t n_seen, n_seen_odd;      /* hits at the last sample, and at those that were odd */
	uint64_t lease_end_ns;            /* an automatic one's */
	uint64_t period_start_ns, n_in_period;
};

/* A region that would be better off with one. */
struct precise_candidate {
	uint64_t region;
	uint64_t since_ns; /* CLOCK_MONOTONIC; in the future: not before then */
	unsigned n;
};

struct precise {
	_Atomic bool due; /* one of the slots is; set under the lock */
	struct precise_slot slots[POINTS];
	struct precise_candidate candidates[POINTS];
	uint64_t n_hits, n_missed; /* shown in stats */
};

void precise_fini(struct precise *precise);

/* May this region have a watchpoint? 1, 2, 4 or 8 bytes, aligned. */
bool precise_fits(const struct region *region);
/*
 * Gives a region its watchpoint; the shadow is what was last there. An automatic one gives way to one that is asked for. -EINVAL,
 * -ENOSPC, -ENOTSUP with a sentence.
 */
int precise_add(struct engine *engine, struct region *region, bool automatic);
/* Takes it away, if there is one; what was not told by then is found by the diff of its page. */
void precise_remove(struct engine *engine, struct region *region);

/* An event of this region had no exact author for its neighbours' sake: after some of these it gets a free watchpoint for a while. */
void precise_suggest(struct engine *engine, const struct region *region);

/* --- on the worker --- */

/* Is there anything for a pass to do? */
bool precise_waiting(struct engine *engine);
/* Takes what has come; up to `n` instructions of it whose symbols will be wanted. How many. */
unsigned precise_drain(struct engine *engine, uint64_t *ret_ips, unsigned n);
/* Tells all writes. `force`: also those that leave doubts, since somebody waits for the pass. */
void precise_pass(struct engine *engine, bool force);

unsigned precise_used(const struct engine *engine);

#endif
