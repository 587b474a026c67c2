/*
 * when.c -- DESIGN: the diff keeps old bytes in runs of blocks of 64, which begin at the region's start or at a page.
 * Where the region's start is no multiple of an element's size, a run may begin and end in the middle of an element:
 * what is not in the run is as it was. No element is in two runs. Runs that touch are one, and a block that lies
 * between two is longer than an element, but for the short one before a page, and that begins with an element. Without
 * old bytes (no memory) the change passes: better one event too many.
 */
#include "when.h"

#include "../base/number.h"

#include <math.h>
#include <string.h>

enum { ITEM_MAX = sizeof(long double) }; /* of a number */

struct element {
	double old, now;
};

static bool judge(const struct region_rules *rules, struct element e)
{
	switch (rules->when) {
	case MEMWATCH_WHEN_ANY_NAN: return isnan(e.now);
	case MEMWATCH_WHEN_GT: return e.now > rules->low;
	case MEMWATCH_WHEN_GE: return e.now >= rules->low;
	case MEMWATCH_WHEN_LT: return e.now < rules->low;
	case MEMWATCH_WHEN_LE: return e.now <= rules->low;
	case MEMWATCH_WHEN_EQ: return e.now == rules->low;
	case MEMWATCH_WHEN_NE: return e.now != rules->low;
	case MEMWATCH_WHEN_OUTSIDE: return e.now < rules->low || e.now > rules->high;
	case MEMWATCH_WHEN_INSIDE: return e.now >= rules->low && e.now <= rules->high;
	case MEMWATCH_WHEN_DELTA_GT: return fabs(e.now - e.old) > rules->low;
	case MEMWATCH_WHEN_CHANGED: break;
	}
	return true;
}

/* The element at `offset` as it was before the run's bytes, `old`, were overwritten. */
static void element_before(const struct region *region, const struct undo_run *run, const uint8_t *old, uint64_t offset,
			   size_t n, uint8_t *ret_before)
{
	uint64_t from = max_u64(offset, run->offset), to = min_u64(offset + n, run->offset + run->size_bytes);
	memcpy(ret_before, region->shadow + offset, n);
	memcpy(ret_before + (from - offset), old + (from - run->offset), to - from);
}

/* The elements that changed of those that one run has a part of. */
static bool any_in_run(const struct region *region, struct number number, const struct undo_run *run,
		       const uint8_t *old)
{
	uint8_t before[ITEM_MAX];
	uint32_t item = number.item_bytes;
	for (uint64_t at = run->offset / item * item; at < run->offset + run->size_bytes; at += item) {
		const uint8_t *now = region->shadow + at;
		element_before(region, run, old, at, item, before);
		if (memcmp(before, now, item) != 0 &&
		    judge(region->meta->rules,
			  (struct element){ number_double(number, before), number_double(number, now) }))
			return true;
	}
	return false;
}

bool when_holds(struct number number, const struct region *region, const struct diff *diff)
{
	const struct region_rules *rules = region_rules(region);
	struct undo_run run;
	if (!rules || rules->when == MEMWATCH_WHEN_CHANGED || diff->undo_lost)
		return true;
	for (size_t at = 0; at < diff->undo_bytes; at += sizeof run + run.size_bytes) {
		memcpy(&run, diff->undo + at, sizeof run);
		if (any_in_run(region, number, &run, diff->undo + at + sizeof run))
			return true;
	}
	return false;
}
