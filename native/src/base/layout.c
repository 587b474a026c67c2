/*
 * layout.c -- DESIGN: an array of records, found by hash through chained buckets; the last region of a layout frees it.
 */
#include "layout.h"

#include "hash.h"

#include <string.h>

enum { BUCKETS_MIN = 64 };

int layouts_init(struct layouts *layouts)
{
	*layouts = (struct layouts){
		.n = 1,
		.capacity = 1,
		.n_buckets = BUCKETS_MIN,
		.layouts = mem_alloc(sizeof *layouts->layouts),
		.buckets = mem_alloc(BUCKETS_MIN * sizeof *layouts->buckets),
	};
	if (!layouts->layouts || !layouts->buckets) {
		layouts_fini(layouts);
		return error_set(-ENOMEM, "no memory for the table of layouts");
	}
	layouts->layouts[0].number = (struct number){ .kind = MEMWATCH_NUMBER_NONE, .item_bytes = 1 };
	return 0;
}

static void layout_fini(struct layout *layout)
{
	mem_free(layout->format);
	mem_free(layout->shape);
}

void layouts_fini(struct layouts *layouts)
{
	for (uint32_t i = 1; i < layouts->n; i++)
		if (layouts->layouts[i].n_regions)
			layout_fini(&layouts->layouts[i]);
	mem_free(layouts->layouts);
	mem_free(layouts->buckets);
	*layouts = (struct layouts){ 0 };
}

static const char *format_of(const struct memwatch_region_options *options)
{
	return options->format ? options->format : "";
}

static uint32_t item_bytes_of(const struct memwatch_region_options *options)
{
	return options->item_bytes ? (uint32_t)options->item_bytes : 1;
}

static uint32_t hash_of(const struct memwatch_region_options *options)
{
	const char *format = format_of(options);
	uint64_t hash = hash_bytes(format, strlen(format), item_bytes_of(options));
	hash = hash_bytes((const char *)options->shape, options->n_dims * sizeof *options->shape, hash);
	return (uint32_t)(hash ^ (options->fortran_order != 0));
}

static bool is_same(const struct layout *layout, const struct memwatch_region_options *options)
{
	return layout->number.item_bytes == item_bytes_of(options) && layout->n_dims == options->n_dims &&
	       layout->fortran_order == (options->fortran_order != 0) &&
	       strcmp(layout->format ? layout->format : "", format_of(options)) == 0 &&
	       (!layout->n_dims || memcmp(layout->shape, options->shape, layout->n_dims * sizeof *layout->shape) == 0);
}

static bool is_plain(const struct memwatch_region_options *options)
{
	return !*format_of(options) && item_bytes_of(options) == 1 && !options->n_dims && !options->fortran_order;
}

static uint32_t *bucket_of(const struct layouts *layouts, uint32_t hash)
{
	return &layouts->buckets[hash & (layouts->n_buckets - 1)];
}

/* As many buckets as layouts at least; without memory the chains get longer. */
static void spread(struct layouts *layouts)
{
	uint32_t n = layouts->n_buckets * 2;
	uint32_t *buckets = layouts->n_used < layouts->n_buckets ? NULL : mem_alloc(n * sizeof *buckets);
	if (!buckets)
		return;
	mem_free(layouts->buckets);
	layouts->buckets = buckets;
	layouts->n_buckets = n;
	for (uint32_t i = 1; i < layouts->n; i++) {
		struct layout *layout = &layouts->layouts[i];
		if (!layout->n_regions)
			continue;
		uint32_t *bucket = bucket_of(layouts, layout->hash);
		layout->next = *bucket;
		*bucket = i;
	}
}

/* A free place, which stays in the list of free ones. */
static bool place_reserve(struct layouts *layouts)
{
	if (layouts->free)
		return true;
	if (!mem_reserve(&layouts->layouts, &layouts->capacity, (size_t)layouts->n + 1, sizeof *layouts->layouts))
		return false;
	layouts->layouts[layouts->n] = (struct layout){ 0 };
	layouts->free = layouts->n++;
	return true;
}

static bool layout_init(struct layout *layout, const struct memwatch_region_options *options)
{
	*layout = (struct layout){ .number = number_of(options->format, item_bytes_of(options)),
				   .fortran_order = options->fortran_order != 0,
				   .n_dims = (uint8_t)options->n_dims };
	layout->number.item_bytes = item_bytes_of(options);
	layout->format = *format_of(options) ? mem_strdup(options->format) : NULL;
	layout->shape = layout->n_dims ? mem_alloc(layout->n_dims * sizeof *layout->shape) : NULL;
	if ((*format_of(options) && !layout->format) || (layout->n_dims && !layout->shape)) {
		layout_fini(layout);
		return false;
	}
	if (layout->n_dims)
		memcpy(layout->shape, options->shape, layout->n_dims * sizeof *layout->shape);
	return true;
}

int layout_take(struct layouts *layouts, const struct memwatch_region_options *options, uint32_t *ret_layout)
{
	struct layout layout;
	*ret_layout = 0;
	if (is_plain(options))
		return 0;
	uint32_t hash = hash_of(options);
	for (uint32_t i = *bucket_of(layouts, hash); i; i = layouts->layouts[i].next) {
		if (layouts->layouts[i].hash == hash && is_same(&layouts->layouts[i], options)) {
			layouts->layouts[i].n_regions++;
			*ret_layout = i;
			return 0;
		}
	}
	if (!place_reserve(layouts) || !layout_init(&layout, options))
		return error_set(-ENOMEM, "no memory for the format and shape of a region");
	spread(layouts);
	uint32_t *bucket = bucket_of(layouts, hash), place = layouts->free;
	layouts->free = layouts->layouts[place].next;
	layouts->layouts[place] = layout;
	layouts->layouts[place].hash = hash;
	layouts->layouts[place].n_regions = 1;
	layouts->layouts[place].next = *bucket;
	*bucket = place;
	layouts->n_used++;
	*ret_layout = place;
	return 0;
}

void layout_drop(struct layouts *layouts, uint32_t number)
{
	struct layout *layout = &layouts->layouts[number];
	if (!number || --layout->n_regions)
		return;
	uint32_t *link = bucket_of(layouts, layout->hash);
	while (*link != number)
		link = &layouts->layouts[*link].next;
	*link = layout->next;
	layout_fini(layout);
	*layout = (struct layout){ .next = layouts->free };
	layouts->free = number;
	layouts->n_used--;
}
