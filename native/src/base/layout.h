/*
 * layout.h -- what the bytes of typed regions are: format, size of an element, extents. Regions of the same layout
 * share one record.
 *
 *   who may run together    nothing: under the engine's lock
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#include "number.h"

struct layout {
	char *format;    /* or NULL */
	uint64_t *shape; /* n_dims extents, or NULL */
	struct number number;
	uint32_t n_regions; /* that have it; 0: the place is free */
	uint32_t next;      /* in its bucket, or in the list of free places */
	uint32_t hash;
	uint8_t n_dims;
	bool fortran_order;
};

struct layouts {
	struct layout *layouts; /* by number; number 0 is that of plain bytes */
	uint32_t n, n_used, free;
	size_t capacity;
	uint32_t *buckets;
	uint32_t n_buckets; /* a power of 2 */
};

int layouts_init(struct layouts *layouts);
void layouts_fini(struct layouts *layouts);

/* The number of the layout that the options describe, for one more region; -ENOMEM. */
int layout_take(struct layouts *layouts, const struct memwatch_region_options *options, uint32_t *ret_layout);
void layout_drop(struct layouts *layouts, uint32_t layout);

/* Good until the next layout_take. */
static inline const struct layout *layout_at(const struct layouts *layouts, uint32_t layout)
{
	return &layouts->layouts[layout];
}

#endif
