/*
 * siphash.c -- DESIGN: SipHash-2-4 of Aumasson and Bernstein, as their paper of 2012 has it. For the hashes that leave
 * the process in place of secret values: with a hash that everybody can compute, a secret of four digits is found by
 * trying ten thousand. A value has the same hash as long as the watcher is open, so that it is seen to come back.
 */
#define _GNU_SOURCE
#include "siphash.h"

#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>

struct state {
	uint64_t v0, v1, v2, v3;
};

struct siphash_key siphash_key_make(void)
{
	struct siphash_key key;
	if (getrandom(&key, sizeof key, GRND_NONBLOCK) == sizeof key)
		return key;
	memcpy(&key, (const void *)getauxval(AT_RANDOM),
	       sizeof key); /* what the kernel gave the process when it began */
	return key;
}

static uint64_t rotate(uint64_t x, int bits)
{
	return x << bits | x >> (64 - bits);
}

static void run_rounds(struct state *s, int n)
{
	while (n-- > 0) {
		s->v0 += s->v1;
		s->v2 += s->v3;
		s->v1 = rotate(s->v1, 13) ^ s->v0;
		s->v3 = rotate(s->v3, 16) ^ s->v2;
		s->v0 = rotate(s->v0, 32);
		s->v2 += s->v1;
		s->v0 += s->v3;
		s->v1 = rotate(s->v1, 17) ^ s->v2;
		s->v3 = rotate(s->v3, 21) ^ s->v0;
		s->v2 = rotate(s->v2, 32);
	}
}

static void take_word(struct state *s, uint64_t word)
{
	s->v3 ^= word;
	run_rounds(s, 2);
	s->v0 ^= word;
}

static uint64_t read_little_endian(const uint8_t *bytes, size_t n)
{
	uint64_t word = 0;
	for (size_t i = 0; i < n; i++)
		word |= (uint64_t)bytes[i] << (8 * i);
	return word;
}

uint64_t siphash(const struct siphash_key *key, const void *bytes, size_t n_bytes)
{
	const uint8_t *at = bytes;
	struct state s = { key->words[0] ^ 0x736f6d6570736575, key->words[1] ^ 0x646f72616e646f6d,
			   key->words[0] ^ 0x6c7967656e657261, key->words[1] ^ 0x7465646279746573 };
	for (size_t rest = n_bytes; rest >= 8; rest -= 8, at += 8)
		take_word(&s, read_little_endian(at, 8));
	take_word(&s, (uint64_t)n_bytes << 56 | read_little_endian(at, n_bytes % 8));
	s.v2 ^= 0xff;
	run_rounds(&s, 4);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
