/*
 * sample.c -- DESIGN: what a scrape reads of every region, over and over: as little of each as it can be. Under the
 * engine's lock, for a batch of regions at a time.
 */
#include "watch.h"

static void fill_sample(const struct engine *engine, const struct region *region, void *ret_sample, size_t struct_bytes)
{
	const struct region_meta *meta = region->meta;
	struct memwatch_region_sample sample = { .id = region_id(region),
						 .delivered = meta ? meta->delivered : 0,
						 .last_seq = meta ? meta->last_seq : 0,
						 .last_time_ns = meta ? meta->last_time_ns : 0,
						 .metric = region->metric };
	sample.number = region_number(region_layout(&engine->regions, region)->number, region, &sample.value);
	memwatch_struct_write(ret_sample, struct_bytes, &sample, sizeof sample);
}

int memwatch_region_sample_list_sized(memwatch *watcher, uint64_t *cursor, struct memwatch_region_sample *samples,
				      size_t n, size_t struct_bytes)
{
	return watch_list(watcher, cursor, fill_sample, samples, n, struct_bytes);
}
