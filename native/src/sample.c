/*
 * sample.c -- DESIGN: what a scrape reads of every region, over and over: as little of each as it can be. Under the
 * engine's lock, for a batch of regions at a time.
 */
#include "watch.h"

static void fill_nth_sample(const struct engine *engine, const struct region *region, void *samples, size_t i)
{
	struct memwatch_region_sample *sample = (struct memwatch_region_sample *)samples + i;
	const struct region_meta *meta = region->meta;
	sample->id = region_id(region);
	sample->delivered = meta ? meta->delivered : 0;
	sample->last_seq = meta ? meta->last_seq : 0;
	sample->last_time_ns = meta ? meta->last_time_ns : 0;
	sample->metric = region->metric;
	sample->value.as_uint = 0;
	sample->number = region_number(region_layout(&engine->regions, region)->number, region, &sample->value);
}

int memwatch_region_sample_list(memwatch *watcher, uint64_t *cursor, struct memwatch_region_sample *samples, size_t n)
{
	return watch_list(watcher, cursor, fill_nth_sample, samples, n);
}
