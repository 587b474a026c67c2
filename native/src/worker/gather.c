/*
 * gather.c -- DESIGN: memory that the watcher's user has promised to keep is compared where it lies. All other memory
 * may vanish in the middle of a look, so the kernel copies it: the written spans of a region are listed until a buffer
 * that fits into the CPU's cache is full, read with one system call, and compared there. The buffer is one huge page,
 * once it pays: the kernel looks up each page that it copies to, and that is half of the price. Small regions that are
 * polled are read many at a time, since most hold what they held. Runs under the engine's lock.
 *
 * Loss: none. Memory that is gone, and a kernel that does not read for us, are two answers.
 */
#define _GNU_SOURCE
#include "gather.h"
#include "../base/memory.h"

#include <string.h>
#include <sys/mman.h>

#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

#define HUGE_BYTES ((size_t)2 << 20)

enum { SMALL_BYTES = GATHER_BYTES / GATHER_PIECES / 2 };
_Static_assert(GATHER_PIECES <= 64, "gather_equal has a bit for each");

/* Under ThreadSanitizer even a read that may race is read through the kernel. */
#if defined(__SANITIZE_THREAD__)
#define MAY_READ_DIRECTLY false
#else
#define MAY_READ_DIRECTLY true
#endif

int gather_init(struct gather *gather)
{
	char *mapping = mem_map(2 * HUGE_BYTES);
	if (!mapping)
		return error_set(-ENOMEM, "no memory to read regions into");
	char *start = (char *)(((uintptr_t)mapping + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1));
	mem_unmap(start + HUGE_BYTES, (size_t)(mapping + HUGE_BYTES - start));
	if (start > mapping)
		mem_unmap(mapping, (size_t)(start - mapping));
	madvise(start, HUGE_BYTES, MADV_WIPEONFORK); /* a fork would share it, and sharing split it */
	*gather = (struct gather){ .buffer = (uint8_t *)start };
	return 0;
}

void gather_fini(struct gather *gather)
{
	mem_unmap(gather->buffer, HUGE_BYTES);
	gather->buffer = NULL;
}

/* A page of a hashed region each, of which the first and the last may be parts. */
static void compare_hashes(struct diff *diff, const struct region *region, const uint8_t *bytes, uint64_t address,
			   size_t n)
{
	uint64_t *hashes = (uint64_t *)(void *)region->shadow, first = page_floor(region->start);
	for (uint64_t end = address + n, next; address < end; bytes += next - address, address = next) {
		next = min_u64(page_floor(address) + PAGE_BYTES, end);
		diff_hashed(diff, bytes, &hashes[(address - first) / PAGE_BYTES], address - region->start,
			    (size_t)(next - address));
	}
}

static void compare_pieces(struct gather *gather, struct diff *diff, const struct region *region,
			   const struct iovec *pieces, size_t n_pieces)
{
	const uint8_t *bytes = gather->buffer;
	for (size_t i = 0; i < n_pieces; bytes += pieces[i++].iov_len) {
		uint64_t address = (uintptr_t)pieces[i].iov_base;
		if (region->flags & MEMWATCH_REGION_HASHED) {
			compare_hashes(diff, region, bytes, address, pieces[i].iov_len);
			continue;
		}
		if (i + 1 < n_pieces)
			diff_expect(bytes + pieces[i].iov_len,
				    region->shadow + ((uintptr_t)pieces[i + 1].iov_base - region->start));
		diff_bytes(diff, bytes, region->shadow, address - region->start, pieces[i].iov_len);
	}
}

static void use_huge_page(struct gather *gather)
{
	gather->was_filled = true;
	madvise(gather->buffer, HUGE_BYTES, MADV_COLLAPSE);
}

/* Reads and compares what is listed. */
static int take(struct gather *gather, struct diff *diff, const struct region *region)
{
	struct iovec pieces[GATHER_PIECES];
	size_t n_pieces = gather->n_pieces, size_bytes = gather->size_bytes;
	if (!n_pieces)
		return 0;
	gather->n_pieces = gather->size_bytes = 0;
	memcpy(pieces, gather->pieces, n_pieces * sizeof *pieces);
	ssize_t n = memory_gather(gather->buffer, gather->pieces, n_pieces);
	if (n < 0)
		return (int)n;
	if ((size_t)n < size_bytes)
		return -EFAULT;
	compare_pieces(gather, diff, region, pieces, n_pieces);
	if (size_bytes > GATHER_BYTES - PAGE_BYTES && !gather->was_filled)
		use_huge_page(gather);
	return 0;
}

/* Lists [from, to), cut where pages begin. */
static int add(struct gather *gather, struct diff *diff, const struct region *region, uint64_t from, uint64_t to)
{
	while (from < to) {
		uint64_t end = min_u64(to, page_floor(from + GATHER_BYTES - gather->size_bytes));
		if (end > from && gather->n_pieces < GATHER_PIECES) {
			gather->pieces[gather->n_pieces++] =
				(struct iovec){ (void *)(uintptr_t)from, (size_t)(end - from) };
			gather->size_bytes += (size_t)(end - from);
			from = end;
			continue;
		}
		int error = take(gather, diff, region);
		if (error)
			return error;
	}
	return 0;
}

static void compare_directly(struct diff *diff, const struct region *region, struct span span, const struct span *next)
{
	const uint8_t *memory = (const uint8_t *)(uintptr_t)span.start;
	uint64_t offset = span.start - region->start;
	if (region->flags & MEMWATCH_REGION_HASHED) {
		compare_hashes(diff, region, memory, span.start, (size_t)(span.end - span.start));
		return;
	}
	if (next)
		diff_expect((const uint8_t *)(uintptr_t)next->start, region->shadow + (next->start - region->start));
	diff_bytes(diff, memory, region->shadow, offset, (size_t)(span.end - span.start));
}

bool gather_is_small(const struct region *region)
{
	return region->size_bytes <= SMALL_BYTES &&
	       !(region->flags & (MEMWATCH_REGION_HASHED | MEMWATCH_REGION_PINNED));
}

uint64_t gather_equal(struct gather *gather, struct region *const *regions, size_t n)
{
	struct iovec pieces[GATHER_PIECES];
	uint64_t equal = 0;
	size_t size_bytes = 0;
	for (size_t i = 0; i < n; size_bytes += regions[i++]->size_bytes)
		pieces[i] = (struct iovec){ (void *)(uintptr_t)regions[i]->start, regions[i]->size_bytes };
	if (memory_gather(gather->buffer, pieces, n) != (ssize_t)size_bytes)
		return 0;
	const uint8_t *bytes = gather->buffer;
	for (size_t i = 0; i < n; bytes += regions[i++]->size_bytes)
		equal |= (uint64_t)(memcmp(bytes, regions[i]->shadow, regions[i]->size_bytes) == 0) << i;
	return equal;
}

/* The pieces of a region that are in one list or the other, in order; what is in both comes once. */
struct pieces {
	const struct span_list *lists[2];
	size_t next[2];
	uint64_t at, end;
};

static bool next_piece(struct pieces *pieces, struct span *ret_piece)
{
	const struct span *first = NULL;
	for (unsigned l = 0; l < 2 && pieces->at < pieces->end; l++) {
		const struct span_list *list = pieces->lists[l];
		size_t *i = &pieces->next[l];
		while (*i < list->n && list->spans[*i].end <= pieces->at)
			++*i;
		if (*i < list->n && (!first || list->spans[*i].start < first->start))
			first = &list->spans[*i];
	}
	if (!first || first->start >= pieces->end)
		return false;
	*ret_piece = (struct span){ max_u64(first->start, pieces->at), min_u64(first->end, pieces->end) };
	pieces->at = ret_piece->end;
	return true;
}

int gather_diff(struct gather *gather, struct diff *diff, struct region *region, const struct span_list *written,
		const struct span_list *polled)
{
	bool direct = MAY_READ_DIRECTLY && region->flags & MEMWATCH_REGION_PINNED;
	struct pieces pieces = { { written, polled },
				 { span_list_after(written, region->start), span_list_after(polled, region->start) },
				 region->start,
				 region_end(region) };
	struct span piece, next;
	int error = 0;
	for (bool more = next_piece(&pieces, &piece); more; piece = next) {
		more = next_piece(&pieces, &next);
		if (direct)
			compare_directly(diff, region, piece, more ? &next : NULL);
		else
			error = add(gather, diff, region, piece.start, piece.end);
		if (error)
			return error;
	}
	return take(gather, diff, region);
}
