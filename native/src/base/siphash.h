/*
 * siphash.h -- a hash that nobody without the key can compute. Any thread; no state.
 */
#ifndef SIPHASH_H
#define SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* 128 random bits. */
struct siphash_key {
	uint64_t words[2];
};

/* From the kernel, of which each process has others. Never fails. */
struct siphash_key siphash_key_make(void);

uint64_t siphash(const struct siphash_key *key, const void *bytes, size_t n_bytes);

#endif
