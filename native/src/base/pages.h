/*
 * pages.h -- a set of pages: O(1) to ask, lock-free to read, cheap to walk in runs, for any number of the user's pages.
 *
 *   who may run together    page_set_has, page_set_mark: any thread, any time, also in handlers
 *                           page_set_add, page_set_remove: one at a time (the engine's lock)
 *                           page_set_next: beside all of them; sees each change or not
 *
 * A radix tree of three levels; nodes are made when needed and live as long as the process, so that a reader never
 * meets a freed one; sets are static. 512 bytes for each 16 MiB that holds a page, 32 KiB for each 64 GiB.
 */
#ifndef PAGES_H
#define PAGES_H

#include "base.h"

enum { LEAF_BITS = 12, MIDDLE_BITS = 12, ROOT_BITS = ADDRESS_BITS - PAGE_SHIFT - LEAF_BITS - MIDDLE_BITS };
static_assert(PAGE_SHIFT + LEAF_BITS + MIDDLE_BITS + ROOT_BITS == ADDRESS_BITS, "the tree covers the user's addresses");

struct page_leaf {
	_Atomic uint64_t words[(1 << LEAF_BITS) / 64]; /* writers as told above; readers: all */
};

struct page_middle {
	struct page_leaf *_Atomic leaves[1 << MIDDLE_BITS];
};

struct page_set {
	struct page_middle *_Atomic middles[1 << ROOT_BITS];
	_Atomic uint64_t n_pages;
};

/* Adds the pages of a span. 0, -ERANGE when no memory can be there, or -ENOMEM with some of them added. */
int page_set_add(struct page_set *set, struct span span);
void page_set_remove(struct page_set *set, struct span span);
/* Is the page of this address in it? Signal-safe. */
bool page_set_has(const struct page_set *set, uint64_t address);
/*
 * Adds one page whose leaf exists (its span was once added, see page_set_reserve); false if there is no leaf.
 * Signal-safe.
 */
bool page_set_mark(struct page_set *set, uint64_t address);
/* Makes the leaves for a span. 0, -ERANGE or -ENOMEM. */
int page_set_reserve(struct page_set *set, struct span span);
/* The first run of pages at or after `from`, cut at `end`. False when there is none. */
bool page_set_next(const struct page_set *set, uint64_t from, uint64_t end, struct span *ret_run);

/* The bits of the 512 pages around `address` (2 MiB, aligned). */
void page_set_words(const struct page_set *set, uint64_t address, uint64_t ret_words[8]);

#endif
