/*
 * candidates.h -- regions that would be better off with a hardware watchpoint of their own: their events had no exact
 * author for their neighbours' sake. Under the engine's lock.
 */
#ifndef CANDIDATES_H
#define CANDIDATES_H

#include "../base/hits.h"
#include "../base/region.h"

struct candidate {
	uint64_t region;   /* a ticket; 0: free */
	uint64_t since_ns; /* CLOCK_MONOTONIC; in the future: not before then */
	unsigned n;        /* suggestions since */
};

struct candidates {
	struct candidate slots[POINTS];
};

/* May this region have a watchpoint? 1, 2, 4 or 8 bytes, aligned. */
bool candidate_fits(const struct region *region);
/*
 * An event of this region had no exact author: after some of these within a second it gets a free watchpoint for a
 * while.
 */
void candidate_suggest(struct candidates *candidates, const struct region *region);
/* Takes the ticket of one that was suggested often enough; 0: there is none. */
uint64_t candidate_next(struct candidates *candidates);
/* Takes no suggestion of this region before then. */
void candidate_postpone(struct candidates *candidates, uint64_t ticket, uint64_t until_ns);

#endif
