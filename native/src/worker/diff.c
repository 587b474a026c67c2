/*
 * diff.c -- DESIGN: memory is compared page by page, which costs what memcmp costs while nothing differs; in a page that differs,
 * blocks of 64 bytes are. A block that differs is copied first, so that writers who go on cannot make ranges, old
 * bytes and shadow disagree; its differing bytes make a 64-bit mask. Old bytes are kept in whole blocks. The worker runs it under the
 * engine's lock.
 *
 * Loss: without memory for the old bytes the change is reported and the older versions are given up.
 */
#include "diff.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
	UNDO_KEEP = 256 << 10, /* a buffer of that size stays for the next region, */
	UNDO_KEEP_SHARE = 32   /* and one of that share of what it may take */
};

/* Under ThreadSanitizer even a read that may race is read through the kernel. */
#if defined(__SANITIZE_THREAD__)
#define MAY_READ_DIRECTLY false
#else
#define MAY_READ_DIRECTLY true
#endif

int diff_init(struct diff *diff)
{
	*diff = (struct diff){ .scratch = mem_map(DIFF_SCRATCH) };
	return diff->scratch ? 0 : error_set(-ENOMEM, "no memory for the diff");
}

void diff_fini(struct diff *diff)
{
	mem_unmap(diff->scratch, DIFF_SCRATCH);
	mem_free(diff->undo);
	diff->scratch = diff->undo = NULL;
}

void diff_reset(struct diff *diff, size_t undo_max)
{
	diff->n_ranges = 0;
	diff->changed_bytes = 0;
	diff->undo_bytes = 0;
	if (diff->undo_capacity > diff->undo_keep) { /* what one large change took */
		mem_free(diff->undo);
		diff->undo = NULL;
		diff->undo_capacity = 0;
	}
	diff->undo_max = undo_max;
	diff->undo_keep = (size_t)max_u64(UNDO_KEEP, undo_max / UNDO_KEEP_SHARE);
	diff->undo_lost = undo_max == 0;
	diff->open_run = SIZE_MAX;
}

static void add_range(struct diff *diff, uint64_t offset, uint64_t size_bytes)
{
	struct memwatch_range *last = diff->n_ranges ? &diff->ranges[diff->n_ranges - 1] : NULL;
	if (last && (last->offset + last->size_bytes == offset || diff->n_ranges == MEMWATCH_CHANGES_MAX))
		last->size_bytes = offset + size_bytes - last->offset;
	else
		diff->ranges[diff->n_ranges++] = (struct memwatch_range){ offset, size_bytes };
}

static bool undo_reserve(struct diff *diff, size_t n)
{
	if (diff->undo_bytes + n > diff->undo_max)
		return false;
	if (diff->undo_bytes + n <= diff->undo_capacity)
		return true;
	size_t capacity = (size_t)min_u64(diff->undo_capacity + diff->undo_capacity / 2 + 4096, diff->undo_max);
	if (diff->make_room)
		diff->make_room(diff->make_room_arg, capacity);
	uint8_t *undo = mem_grow(diff->undo, capacity);
	if (!undo)
		return false;
	diff->undo = undo;
	diff->undo_capacity = capacity;
	return true;
}

uint8_t *diff_take_undo(struct diff *diff)
{
	uint8_t *undo;
	if (diff->undo_bytes < diff->undo_keep) {
		undo = mem_alloc(diff->undo_bytes);
		return undo ? memcpy(undo, diff->undo, diff->undo_bytes) : NULL;
	}
	undo = mem_trim(diff->undo, diff->undo_bytes);
	diff->undo = NULL;
	diff->undo_capacity = 0;
	return undo;
}

/* Room for a block in the undo, behind the run that it continues or a new one; NULL: given up. */
static uint8_t *undo_room(struct diff *diff, uint64_t offset, size_t n)
{
	if (diff->undo_lost)
		return NULL;
	if (diff->undo_bytes + sizeof diff->run + n > diff->undo_capacity &&
	    !undo_reserve(diff, sizeof diff->run + n)) {
		diff->undo_lost = true;
		diff->undo_bytes = 0;
		return NULL;
	}
	if (diff->open_run == SIZE_MAX || diff->run.offset + diff->run.size_bytes != offset) {
		diff->open_run = diff->undo_bytes;
		diff->run = (struct undo_run){ offset, 0 };
		diff->undo_bytes += sizeof diff->run;
	}
	diff->run.size_bytes += n;
	memcpy(diff->undo + diff->open_run, &diff->run, sizeof diff->run);
	diff->undo_bytes += n;
	return diff->undo + diff->undo_bytes - n;
}

/* A bit for each of 8 bytes that differs. */
static uint64_t byte_mask(uint64_t a, uint64_t b)
{
	const uint64_t low = UINT64_C(0x7f7f7f7f7f7f7f7f);
	uint64_t x = a ^ b;
	uint64_t high = (((x & low) + low) | x) & ~low; /* 0x80 in each byte that differs */
	return (high >> 7) * UINT64_C(0x0102040810204080) >> 56;
}

static inline uint64_t block_mask(const uint8_t *a, const uint8_t *b, size_t n)
{
	uint64_t mask = 0, x, y;
	size_t i = 0;
	for (; i + 8 <= n; i += 8) {
		memcpy(&x, a + i, 8);
		memcpy(&y, b + i, 8);
		if (x != y)
			mask |= byte_mask(x, y) << i;
	}
	for (; i < n; i++)
		mask |= (uint64_t)(a[i] != b[i]) << i;
	return mask;
}

static void add_ranges(struct diff *diff, uint64_t offset, uint64_t mask)
{
	diff->changed_bytes += (uint64_t)__builtin_popcountll(mask);
	for (unsigned i = 0; mask;) {
		unsigned skip = (unsigned)__builtin_ctzll(mask);
		i += skip;
		mask >>= skip;
		unsigned run = ~mask ? (unsigned)__builtin_ctzll(~mask) : 64;
		add_range(diff, offset + i, run);
		if (run == 64)
			break;
		mask >>= run;
		i += run;
	}
}

/* Does it differ? What is compared is what is kept, whatever writers do meanwhile. */
static inline __attribute__((always_inline)) bool take_block(struct diff *diff, const uint8_t *now, uint8_t *shadow,
							     uint64_t offset, size_t n)
{
	uint8_t block[DIFF_BLOCK];
	memcpy(block, now, n);
	uint64_t mask = block_mask(block, shadow, n);
	if (!mask)
		return false;
	uint8_t *undo = undo_room(diff, offset, n);
	if (undo)
		memcpy(undo, shadow, n);
	memcpy(shadow, block, n);
	add_ranges(diff, offset, mask);
	return true;
}

typedef uint64_t lanes __attribute__((vector_size(16), aligned(1), may_alias));

/* How many bytes from the start are equal, in whole blocks. */
static size_t equal_blocks(const uint8_t *a, const uint8_t *b, size_t n)
{
	size_t i = 0;
	for (; i + DIFF_BLOCK <= n; i += DIFF_BLOCK) {
		const lanes *x = (const lanes *)(a + i), *y = (const lanes *)(b + i);
		lanes differs = (x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]);
		if (differs[0] | differs[1])
			break;
	}
	return i;
}

/* memcmp is the fastest over what is equal, but does not say where it stopped. */
static void compare(struct diff *diff, const uint8_t *now, uint8_t *shadow, uint64_t offset, size_t n)
{
	for (size_t i = 0; i < n && memcmp(now + i, shadow + i, n - i) != 0;) {
		i += equal_blocks(now + i, shadow + i, n - i);
		while (i + DIFF_BLOCK <= n && take_block(diff, now + i, shadow + i, offset + i, DIFF_BLOCK))
			i += DIFF_BLOCK;
		if (i + DIFF_BLOCK > n) {
			take_block(diff, now + i, shadow + i, offset + i, n - i);
			break;
		}
		i += DIFF_BLOCK; /* the one after the change, which is equal */
	}
}

/* Pages that can be read as they are. */
static void diff_direct(struct diff *diff, const uint8_t *memory, uint8_t *shadow, uint64_t offset, uint64_t end)
{
	for (uint64_t at = offset; at < end;) {
		uint64_t page_end = min_u64(end, at + PAGE_BYTES - ((uintptr_t)(memory + at) & (PAGE_BYTES - 1)));
		size_t n = (size_t)(page_end - at);
		compare(diff, memory + at, shadow + at, at, n);
		at = page_end;
	}
}

int diff_memory(struct diff *diff, uint64_t start, uint8_t *shadow, uint64_t offset, uint64_t size_bytes, bool direct)
{
	uint64_t end = offset + size_bytes;
	if (direct && MAY_READ_DIRECTLY) {
		diff_direct(diff, (const uint8_t *)(uintptr_t)start, shadow, offset, end);
		return 0;
	}
	for (uint64_t at = offset; at < end; at += DIFF_SCRATCH) {
		size_t n = (size_t)min_u64(end - at, DIFF_SCRATCH);
		if (memory_copy(diff->scratch, start + at, n))
			return -EFAULT;
		compare(diff, diff->scratch, shadow + at, at, n);
	}
	return 0;
}

uint64_t diff_hash(const void *bytes, size_t n)
{
	return XXH3_64bits(bytes, n);
}

uint64_t diff_hashes(uint64_t start, uint64_t region_bytes)
{
	return (page_ceil(start + region_bytes) - page_floor(start)) / PAGE_BYTES;
}

int diff_hashed(struct diff *diff, uint64_t start, uint64_t region_bytes, uint64_t *hashes, uint64_t from, uint64_t to)
{
	for (uint64_t page = page_floor(from); page < to; page += PAGE_BYTES) {
		uint64_t low = max_u64(page, start), high = min_u64(page + PAGE_BYTES, start + region_bytes);
		size_t n = (size_t)(high - low);
		if (memory_copy(diff->scratch, low, n))
			return -EFAULT;
		uint64_t now = diff_hash(diff->scratch, n), *kept = &hashes[(page - page_floor(start)) / PAGE_BYTES];
		if (now == *kept)
			continue;
		*kept = now;
		diff->changed_bytes += n;
		add_range(diff, low - start, n);
	}
	return 0;
}
