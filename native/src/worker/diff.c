/*
 * diff.c -- DESIGN: memory is compared in blocks of 64 bytes, with the widest instructions that the CPU has. A block
 * that differs is copied first, so that writers who go on cannot make ranges, old bytes and shadow disagree; its
 * differing bytes make a 64-bit mask. Old bytes are kept in whole blocks. The worker runs it under the engine's lock.
 *
 * Loss: without memory for the old bytes the change is reported and the older versions are given up.
 */
#include "diff.h"

#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
	AHEAD = 1024,          /* bytes that are prefetched while a run is compared, */
	AHEAD_FROM = 8 << 10,  /* when so many remain, */
	EXPECTED = 512,        /* and of the next run meanwhile */
	UNDO_KEEP = 256 << 10, /* a buffer of that size stays for the next region, */
	UNDO_KEEP_SHARE = 32   /* and one of that share of what it may take */
};

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
	diff->n_kept = 0;
	diff->lost_from = UINT64_MAX;
}

void diff_erase(struct diff *diff)
{
	if (diff->undo_bytes)
		explicit_bzero(diff->undo, diff->undo_bytes);
	explicit_bzero(diff->kept, diff->n_kept * sizeof diff->kept[0]);
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

#ifdef __x86_64__
/* A bit for each of 16 bytes that differs. */
static inline uint64_t lane_mask(const uint8_t *a, const uint8_t *b)
{
	__m128i x = _mm_loadu_si128((const __m128i *)(const void *)a);
	__m128i y = _mm_loadu_si128((const __m128i *)(const void *)b);
	return (uint64_t)(~_mm_movemask_epi8(_mm_cmpeq_epi8(x, y)) & 0xffff);
}
enum { LANE = 16 };
#else
/* A bit for each of 8 bytes that differs. */
static inline uint64_t lane_mask(const uint8_t *a, const uint8_t *b)
{
	const uint64_t low = UINT64_C(0x7f7f7f7f7f7f7f7f);
	uint64_t x, y;
	memcpy(&x, a, 8);
	memcpy(&y, b, 8);
	x ^= y;
	uint64_t high = (((x & low) + low) | x) & ~low; /* 0x80 in each byte that differs */
	return (high >> 7) * UINT64_C(0x0102040810204080) >> 56;
}
enum { LANE = 8 };
#endif

static inline uint64_t block_mask(const uint8_t *a, const uint8_t *b, size_t n)
{
	uint64_t mask = 0;
	size_t i = 0;
	for (; i + LANE <= n; i += LANE)
		mask |= lane_mask(a + i, b + i) << i;
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

static inline void keep_block(struct diff *diff, const uint8_t *old, uint64_t offset, size_t n)
{
	struct diff_block *block = &diff->kept[diff->n_kept];
	if (diff->n_kept == DIFF_KEPT || (diff->n_kept && offset < block[-1].offset)) {
		diff->lost_from = min_u64(diff->lost_from, offset);
		return;
	}
	block->offset = offset;
	block->size_bytes = (uint32_t)n;
	memcpy(block->old, old, n);
	diff->n_kept++;
}

void diff_old(const struct diff *diff, const uint8_t *shadow, uint64_t offset, size_t n, uint8_t *ret_old)
{
	memcpy(ret_old, shadow + offset, n);
	for (uint32_t i = 0; i < diff->n_kept && diff->kept[i].offset < offset + n; i++) {
		const struct diff_block *block = &diff->kept[i];
		uint64_t begin = max_u64(offset, block->offset);
		uint64_t end = min_u64(offset + n, block->offset + block->size_bytes);
		if (begin < end)
			memcpy(ret_old + (begin - offset), block->old + (begin - block->offset), end - begin);
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
	keep_block(diff, shadow, offset, n);
	memcpy(shadow, block, n);
	add_ranges(diff, offset, mask);
	return true;
}

size_t diff_equal_blocks(const uint8_t *a, const uint8_t *b, size_t n)
{
	size_t i = 0;
	while (i + DIFF_BLOCK <= n && !block_mask(a + i, b + i, DIFF_BLOCK))
		i += DIFF_BLOCK;
	return i;
}

#ifdef __x86_64__
/* All ones in each byte that is equal. */
__attribute__((target("avx2"))) static inline __m256i equal_lane(const uint8_t *a, const uint8_t *b)
{
	return _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)(const void *)a),
				 _mm256_loadu_si256((const __m256i *)(const void *)b));
}

/* Two blocks: how many bytes from the start are equal, in whole blocks. */
__attribute__((target("avx2"))) static inline size_t equal_pair(const uint8_t *a, const uint8_t *b)
{
	__m256i first = _mm256_and_si256(equal_lane(a, b), equal_lane(a + 32, b + 32));
	__m256i second = _mm256_and_si256(equal_lane(a + 64, b + 64), equal_lane(a + 96, b + 96));
	if (_mm256_movemask_epi8(_mm256_and_si256(first, second)) == -1)
		return 2 * DIFF_BLOCK;
	return _mm256_movemask_epi8(first) == -1 ? DIFF_BLOCK : 0;
}

/* Nothing beyond the end is prefetched: it would be in the way of what is compared. */
__attribute__((target("avx2"))) static size_t equal_blocks_avx2(const uint8_t *a, const uint8_t *b, size_t n)
{
	size_t i = 0, pair = 2 * DIFF_BLOCK;
	for (; n >= AHEAD_FROM && pair == 2 * DIFF_BLOCK && i + AHEAD + pair <= n; i += pair) {
		__builtin_prefetch(a + i + AHEAD);
		__builtin_prefetch(a + i + AHEAD + 64);
		__builtin_prefetch(b + i + AHEAD);
		__builtin_prefetch(b + i + AHEAD + 64);
		pair = equal_pair(a + i, b + i);
	}
	for (; pair == 2 * DIFF_BLOCK && i + pair <= n; i += pair)
		pair = equal_pair(a + i, b + i);
	return pair == 2 * DIFF_BLOCK ? i + diff_equal_blocks(a + i, b + i, n - i) : i;
}
#endif

void diff_init(struct diff *diff)
{
	*diff = (struct diff){ .equal_blocks = diff_equal_blocks };
#ifdef __x86_64__
	if (__builtin_cpu_supports("avx2"))
		diff->equal_blocks = equal_blocks_avx2;
#endif
}

void diff_fini(struct diff *diff)
{
	mem_free(diff->undo);
	diff->undo = NULL;
}

void diff_bytes(struct diff *diff, const uint8_t *now, uint8_t *shadow, uint64_t offset, size_t n)
{
	shadow += offset;
	for (size_t i = 0; (i += diff->equal_blocks(now + i, shadow + i, n - i)) < n;) {
		size_t block = (size_t)min_u64(n - i, DIFF_BLOCK);
		take_block(diff, now + i, shadow + i, offset + i, block);
		i += block;
	}
}

void diff_expect(const uint8_t *now, const uint8_t *shadow)
{
	for (size_t i = 0; i < EXPECTED; i += 64) {
		__builtin_prefetch(now + i);
		__builtin_prefetch(shadow + i);
	}
}

void diff_hashed(struct diff *diff, const uint8_t *now, uint64_t *hash, uint64_t offset, size_t n)
{
	uint64_t hashed = XXH3_64bits(now, n);
	if (hashed == *hash)
		return;
	*hash = hashed;
	diff->changed_bytes += n;
	add_range(diff, offset, n);
}
