/*
 * edge.c -- DESIGN: the source steps over neighbours' writes on pages that it has a mask for (fault/step.c). A page
 * gets its mask with its first region, from all regions on it; regions that come and go later set and clear their bits.
 * A bit that is set too much costs an author now and then; one that is clear too much would, too: so where regions
 * overlap, bits stay set.
 */
#include "edge.h"

/* The bytes of a page that regions hold. */
struct mask {
	uint64_t page, words[PAGE_BYTES / 64];
};

static void cover(struct region *region, void *arg)
{
	struct mask *mask = arg;
	uint64_t from = max_u64(region->start, mask->page) - mask->page;
	uint64_t to = min_u64(region_end(region), mask->page + PAGE_BYTES) - mask->page;
	for (uint64_t w = from / 64; w <= (to - 1) / 64; w++) {
		uint64_t bits = ~UINT64_C(0);
		if (w == from / 64)
			bits &= ~UINT64_C(0) << from % 64;
		if (w == (to - 1) / 64)
			bits &= ~UINT64_C(0) >> (63 - (to - 1) % 64);
		mask->words[w] |= bits;
	}
}

static void page_came(struct engine *engine, const struct region *region, uint64_t page)
{
	struct mask mask = { .page = page };
	uint64_t from = max_u64(region->start, page), to = min_u64(region_end(region), page + PAGE_BYTES);
	enum contest state = engine->source->contested(page);
	if (state == CONTEST_KNOWN)
		engine->source->hold(from, to, true);
	if (state != CONTEST_FREE || to - from == PAGE_BYTES)
		return;
	region_overlapping(&engine->regions, page, page + PAGE_BYTES, cover, &mask);
	engine->source->contest(page, mask.words);
}

static void page_went(struct engine *engine, const struct region *region, uint64_t page)
{
	uint64_t from = max_u64(region->start, page), to = min_u64(region_end(region), page + PAGE_BYTES);
	if (engine->source->contested(page) != CONTEST_KNOWN)
		return;
	if (!region_any(&engine->regions, page, page + PAGE_BYTES))
		engine->source->forget((struct span){ page, page + PAGE_BYTES });
	else if (!region_any(&engine->regions, from, to))
		engine->source->hold(from, to, false);
}

/* Pages that lie whole inside a region have no neighbours. */
static void forget_inside(struct engine *engine, struct span span)
{
	if (span.end - span.start > 2 * PAGE_BYTES)
		engine->source->forget((struct span){ span.start + PAGE_BYTES, span.end - PAGE_BYTES });
}

void edge_came(struct engine *engine, const struct region *region)
{
	struct span span = span_of(region->start, region->size_bytes);
	if (!engine->source)
		return;
	forget_inside(engine, span);
	page_came(engine, region, span.start);
	if (span.end - span.start > PAGE_BYTES)
		page_came(engine, region, span.end - PAGE_BYTES);
}

void edge_went(struct engine *engine, const struct region *region)
{
	struct span span = span_of(region->start, region->size_bytes);
	if (!engine->source)
		return;
	page_went(engine, region, span.start);
	if (span.end - span.start > PAGE_BYTES)
		page_went(engine, region, span.end - PAGE_BYTES);
}
