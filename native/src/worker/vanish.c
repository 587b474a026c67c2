/*
 * vanish.c -- DESIGN: memory that goes away is found when it is read; where nobody writes, that is never. So each full
 * pass looks whether a few regions that nobody pins still have their memory, all of them in turn. The last bytes of all
 * are read with one system call; one that has more than a page may have a hole, which takes a call of its own, and of
 * these there is one a time. Runs on the worker under the engine's lock.
 *
 * Loss: what goes away and comes back between two looks is not seen.
 */
#include "vanish.h"

#include "emit.h"
#include "../base/memory.h"

enum { CHECKS_A_PASS = 64 };

/* The next region whose memory nobody has promised to keep, in turn; NULL at the end of a round. */
static struct region *next_unpinned(struct engine *engine)
{
	struct region *region;
	while ((region = region_next(&engine->regions, engine->pass.check_slot, &engine->pass.check_slot))) {
		engine->pass.check_slot++;
		if (region->start && !(region->flags & (MEMWATCH_REGION_PINNED | REGION_LOST)))
			return region;
	}
	engine->pass.check_slot = 0;
	return NULL;
}

void vanish_check(struct engine *engine)
{
	struct region *regions[CHECKS_A_PASS];
	struct iovec last[CHECKS_A_PASS];
	uint8_t bytes[CHECKS_A_PASS];
	size_t n = 0;
	while (n < CHECKS_A_PASS && (regions[n] = next_unpinned(engine))) {
		last[n] = (struct iovec){ (void *)(uintptr_t)(region_end(regions[n]) - 1), 1 };
		n++;
	}
	if (!n)
		return;
	engine->pass.n_checked++;
	struct region *whole = regions[engine->pass.n_checked % n];
	ssize_t n_read = memory_gather(bytes, last, n);
	if (n_read >= 0 && (size_t)n_read < n)
		emit_lost(engine, regions[n_read]);
	if (!(whole->flags & REGION_LOST) && page_floor(whole->start) != page_floor(region_end(whole) - 1) &&
	    memory_has_left(whole->start, whole->size_bytes))
		emit_lost(engine, whole);
}
