/*
 * gather.h -- brings together what a pass compares of a region, and compares it.
 */
#ifndef GATHER_H
#define GATHER_H

#include "../base/region.h"
#include "diff.h"

#include <sys/uio.h>

enum { GATHER_BYTES = 128 << 10, GATHER_PIECES = 64 };

/* Pieces of a region's memory that are read with one system call. Under the engine's lock. */
struct gather {
	uint8_t *buffer; /* at the beginning of a huge page */
	struct iovec pieces[GATHER_PIECES];
	size_t n_pieces, size_bytes;
	bool was_filled; /* once, as a whole: the buffer is a huge page since, where there are such */
};

int gather_init(struct gather *gather);
void gather_fini(struct gather *gather);

/*
 * Compares what the sorted lists hold of a region with its shadow, in order and each byte once: a page may be both
 * written and polled. 0, -EFAULT when some of the memory is gone, or what the kernel says when it does not read for
 * us: a part may have been compared then, and the rest is not known.
 */
int gather_diff(struct gather *gather, struct diff *diff, struct region *region, const struct span_list *written,
		const struct span_list *polled);

/*
 * Reads up to GATHER_PIECES small regions with one system call. A bit for each that holds what its shadow holds; none
 * where some of the memory is gone, or the kernel does not read for us.
 */
uint64_t gather_equal(struct gather *gather, struct region *const *regions, size_t n);
bool gather_is_small(const struct region *region);

#endif
