/*
 * when.c -- DESIGN: the diff keeps old bytes in blocks of 64 from the region's start, and an element's size divides 64,
 * so that each run holds whole elements, old beside new. Without old bytes (no memory) the change passes: better one
 * event too many.
 */
#include "when.h"

#include "../base/number.h"

#include <math.h>
#include <string.h>

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

/* The elements of one run that changed. */
static bool any_in_run(const struct region *region, struct number number, const struct undo_run *run,
		       const uint8_t *old)
{
	uint32_t item = number.item_bytes;
	const uint8_t *now = region->shadow + run->offset;
	for (uint64_t i = 0; i + item <= run->size_bytes; i += item)
		if (memcmp(old + i, now + i, item) != 0 &&
		    judge(region->meta->rules,
			  (struct element){ number_double(number, old + i), number_double(number, now + i) }))
			return true;
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
