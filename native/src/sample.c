/*
 * sample.c -- DESIGN: what a scrape reads of every region, over and over: as little of each as it can be. Under the engine's lock, for a
 * batch of regions at a time.
 */
#include "sample.h"

#include "watch.h"

enum memwatch_number sample_number(struct number number, const struct region *region,
				   union memwatch_number_value *ret_value)
{
	if (number.kind == MEMWATCH_NUMBER_NONE || number.item_bytes != region->size_bytes ||
	    region->flags & MEMWATCH_REGION_HASHED || region->values != MEMWATCH_VALUES_FULL)
		return MEMWATCH_NUMBER_NONE;
	if (number.kind == MEMWATCH_NUMBER_INT)
		ret_value->as_int = number_int(number, region->shadow);
	else if (number.kind == MEMWATCH_NUMBER_UINT)
		ret_value->as_uint = number_uint(number, region->shadow);
	else
		ret_value->as_double = number_double(number, region->shadow);
	return number.kind;
}

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
	sample->number = sample_number(region_layout(&engine->regions, region)->number, region, &sample->value);
}

int memwatch_region_sample_list(memwatch *watcher, uint64_t *cursor, struct memwatch_region_sample *samples, size_t n)
{
	return watch_list(watcher, cursor, fill_nth_sample, samples, n);
}
