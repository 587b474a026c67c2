/*
 * candidates.c -- counts suggestions for a handful of regions. The worker's, and whoever removes a region. When there
 * are more regions than places, the one that waits longest gives its place up: it is suggested again if it still needs
 * it.
 */
#include "candidates.h"

enum { SUGGESTIONS = 3 };

bool candidate_fits(const struct region *region)
{
	uint64_t n = region->size_bytes;
	return region->start && (n == 1 || n == 2 || n == 4 || n == 8) && !(region->start & (n - 1)) &&
	       !(region->flags & (MEMWATCH_REGION_HASHED | REGION_LOST));
}

static struct candidate *candidate_of(struct candidates *candidates, uint64_t ticket)
{
	struct candidate *oldest = candidates->slots;
	for (unsigned i = 0; i < POINTS; i++) {
		if (candidates->slots[i].region == ticket)
			return &candidates->slots[i];
		if (candidates->slots[i].since_ns < oldest->since_ns)
			oldest = &candidates->slots[i];
	}
	*oldest = (struct candidate){ .region = ticket };
	return oldest;
}

void candidate_suggest(struct candidates *candidates, const struct region *region)
{
	uint64_t now_ns = time_monotonic_ns();
	if (region->point || region->precise != MEMWATCH_PRECISE_AUTO || !candidate_fits(region))
		return;
	struct candidate *candidate = candidate_of(candidates, region_ticket(region));
	if (candidate->since_ns > now_ns)
		return;
	if (now_ns - candidate->since_ns > NS_PER_S) {
		candidate->since_ns = now_ns;
		candidate->n = 0;
	}
	candidate->n++;
}

uint64_t candidate_next(struct candidates *candidates)
{
	for (unsigned i = 0; i < POINTS; i++) {
		struct candidate *candidate = &candidates->slots[i];
		if (candidate->n < SUGGESTIONS)
			continue;
		candidate->n = 0;
		return candidate->region;
	}
	return 0;
}

void candidate_postpone(struct candidates *candidates, uint64_t ticket, uint64_t until_ns)
{
	candidate_of(candidates, ticket)->since_ns = until_ns;
}
