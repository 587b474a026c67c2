/*
 * pages.c -- DESIGN: see pages.h. Bits are single atomic words; a node is published with release and read with acquire.
 */
#include "pages.h"

static uint64_t leaf_base(uint64_t address)
{
	return address >> (PAGE_SHIFT + LEAF_BITS) << (PAGE_SHIFT + LEAF_BITS);
}

static struct page_leaf *leaf_find(const struct page_set *set, uint64_t address)
{
	uint64_t i = address >> (PAGE_SHIFT + LEAF_BITS);
	if (address >= ADDRESS_END)
		return NULL;
	/* Pairs with the release in leaf_make: a node that is seen is whole. */
	struct page_middle *middle = atomic_load_explicit(&set->middles[i >> MIDDLE_BITS], memory_order_acquire);
	if (!middle)
		return NULL;
	return atomic_load_explicit(&middle->leaves[i & ((1 << MIDDLE_BITS) - 1)], memory_order_acquire);
}

static struct page_leaf *leaf_make(struct page_set *set, uint64_t address)
{
	uint64_t i = address >> (PAGE_SHIFT + LEAF_BITS);
	struct page_middle *middle = atomic_load_explicit(&set->middles[i >> MIDDLE_BITS], memory_order_relaxed);
	if (!middle) {
		middle = mem_map(sizeof *middle);
		if (!middle)
			return NULL;
		atomic_store_explicit(&set->middles[i >> MIDDLE_BITS], middle, memory_order_release);
	}
	struct page_leaf *leaf =
		atomic_load_explicit(&middle->leaves[i & ((1 << MIDDLE_BITS) - 1)], memory_order_relaxed);
	if (!leaf) {
		leaf = mem_alloc(sizeof *leaf);
		if (leaf)
			atomic_store_explicit(&middle->leaves[i & ((1 << MIDDLE_BITS) - 1)], leaf,
					      memory_order_release);
	}
	return leaf;
}

static unsigned page_index(uint64_t address)
{
	return (unsigned)(address >> PAGE_SHIFT) & ((1 << LEAF_BITS) - 1);
}

/* The bits of word `w` that lie in pages [first, last] of a leaf. */
static uint64_t word_mask(unsigned w, unsigned first, unsigned last)
{
	uint64_t mask = ~UINT64_C(0);
	if (w == first / 64)
		mask &= ~UINT64_C(0) << first % 64;
	if (w == last / 64)
		mask &= ~UINT64_C(0) >> (63 - last % 64);
	return mask;
}

static uint64_t leaf_add(struct page_leaf *leaf, unsigned first, unsigned last)
{
	uint64_t n = 0;
	for (unsigned w = first / 64; w <= last / 64; w++) {
		uint64_t mask = word_mask(w, first, last);
		uint64_t before = atomic_fetch_or_explicit(&leaf->words[w], mask, memory_order_release);
		n += (uint64_t)__builtin_popcountll(mask & ~before);
	}
	return n;
}

static uint64_t leaf_remove(struct page_leaf *leaf, unsigned first, unsigned last)
{
	uint64_t n = 0;
	for (unsigned w = first / 64; w <= last / 64; w++) {
		uint64_t mask = word_mask(w, first, last);
		uint64_t before = atomic_fetch_and_explicit(&leaf->words[w], ~mask, memory_order_release);
		n += (uint64_t)__builtin_popcountll(mask & before);
	}
	return n;
}

int page_set_reserve(struct page_set *set, struct span span)
{
	if (span.end > ADDRESS_END)
		return -ERANGE;
	for (uint64_t base = leaf_base(span.start); base < span.end; base += (uint64_t)PAGE_BYTES << LEAF_BITS)
		if (!leaf_make(set, base))
			return -ENOMEM;
	return 0;
}

int page_set_add(struct page_set *set, struct span span)
{
	if (span.end > ADDRESS_END)
		return -ERANGE;
	for (uint64_t at = span.start; at < span.end;) {
		uint64_t end = min_u64(span.end, leaf_base(at) + ((uint64_t)PAGE_BYTES << LEAF_BITS));
		struct page_leaf *leaf = leaf_make(set, at);
		if (!leaf)
			return -ENOMEM;
		uint64_t n = leaf_add(leaf, page_index(at), page_index(end - 1));
		atomic_fetch_add_explicit(&set->n_pages, n, memory_order_relaxed);
		at = end;
	}
	return 0;
}

void page_set_remove(struct page_set *set, struct span span)
{
	for (uint64_t at = span.start; at < span.end;) {
		uint64_t end = min_u64(span.end, leaf_base(at) + ((uint64_t)PAGE_BYTES << LEAF_BITS));
		struct page_leaf *leaf = leaf_find(set, at);
		if (leaf) {
			uint64_t n = leaf_remove(leaf, page_index(at), page_index(end - 1));
			atomic_fetch_sub_explicit(&set->n_pages, n, memory_order_relaxed);
		}
		at = end;
	}
}

bool page_set_has(const struct page_set *set, uint64_t address)
{
	struct page_leaf *leaf = leaf_find(set, address);
	if (!leaf)
		return false;
	unsigned i = page_index(address);
	return atomic_load_explicit(&leaf->words[i / 64], memory_order_acquire) >> i % 64 & 1;
}

bool page_set_mark(struct page_set *set, uint64_t address)
{
	struct page_leaf *leaf = leaf_find(set, address);
	if (!leaf)
		return false;
	unsigned i = page_index(address);
	atomic_fetch_add_explicit(&set->n_pages, leaf_add(leaf, i, i), memory_order_relaxed);
	return true;
}

/* The first page at or after `i` whose bit is `wanted`, or the leaf's size. */
static unsigned leaf_seek(const struct page_leaf *leaf, unsigned i, bool wanted)
{
	for (; i < 1 << LEAF_BITS; i = (i / 64 + 1) * 64) {
		uint64_t word = atomic_load_explicit(&leaf->words[i / 64], memory_order_acquire);
		word = (wanted ? word : ~word) >> i % 64;
		if (word)
			return i + (unsigned)__builtin_ctzll(word);
	}
	return 1 << LEAF_BITS;
}

/* The start of the next leaf that exists at or after `at`, or `end`. */
static uint64_t leaf_next(const struct page_set *set, uint64_t at, uint64_t end)
{
	while (at < end) {
		uint64_t i = at >> (PAGE_SHIFT + LEAF_BITS);
		const struct page_middle *middle =
			atomic_load_explicit(&set->middles[i >> MIDDLE_BITS], memory_order_acquire);
		if (!middle) {
			at = ((i >> MIDDLE_BITS) + 1) << (PAGE_SHIFT + LEAF_BITS + MIDDLE_BITS);
			continue;
		}
		if (atomic_load_explicit(&middle->leaves[i & ((1 << MIDDLE_BITS) - 1)], memory_order_acquire))
			return at;
		at = (i + 1) << (PAGE_SHIFT + LEAF_BITS);
	}
	return end;
}

bool page_set_next(const struct page_set *set, uint64_t from, uint64_t end, struct span *ret_run)
{
	uint64_t at = from, start;
	for (;;) {
		at = leaf_next(set, at, end);
		if (at >= end)
			return false;
		unsigned i = leaf_seek(leaf_find(set, at), page_index(at), true);
		start = leaf_base(at) + ((uint64_t)i << PAGE_SHIFT);
		if (i < 1 << LEAF_BITS)
			break;
		at = start;
	}
	if (start >= end)
		return false;
	at = start;
	for (const struct page_leaf *leaf = leaf_find(set, at); leaf && at < end; leaf = leaf_find(set, at)) {
		unsigned i = leaf_seek(leaf, page_index(at), false);
		at = leaf_base(at) + ((uint64_t)i << PAGE_SHIFT);
		if (i < 1 << LEAF_BITS)
			break;
	}
	*ret_run = (struct span){ start, min_u64(at, end) };
	return true;
}

void page_set_words(const struct page_set *set, uint64_t address, uint64_t ret_words[8])
{
	const struct page_leaf *leaf = leaf_find(set, address);
	unsigned first = page_index(address) / 512 * 8;
	for (unsigned i = 0; i < 8; i++)
		ret_words[i] = leaf ? atomic_load_explicit(&leaf->words[first + i], memory_order_relaxed) : 0;
}
