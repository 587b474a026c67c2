/*
 * hash.h -- hashes for tables of our own. Who could choose the keys gains nothing but time; secrets take siphash.h.
 */
#ifndef HASH_H
#define HASH_H

#include <stdint.h>
#include <string.h>

#define HASH_GOLDEN UINT64_C(0x9e3779b97f4a7c15) /* 2^64 divided by the golden ratio: Knuth, volume 3, 6.4 */

/* Its upper bits depend on all bits of `word`: take the hash from there. Signal-safe. */
static inline uint64_t hash_word(uint64_t word)
{
	return word * HASH_GOLDEN;
}

/* Of `n` bytes and of `seed`: all its bits are good. Signal-safe. */
static inline uint64_t hash_bytes(const char *bytes, size_t n, uint64_t seed)
{
	uint64_t word, hash = seed;
	for (; n >= sizeof word; bytes += sizeof word, n -= sizeof word) {
		memcpy(&word, bytes, sizeof word);
		hash = hash_word(hash ^ word);
		hash ^= hash >> 29;
	}
	word = n;
	if (n)
		memcpy(&word, bytes, n);
	hash = (hash ^ word ^ (uint64_t)n << 56) * UINT64_C(0xff51afd7ed558ccd);
	return hash ^ hash >> 32;
}

#endif
