/*
 * store.h -- what an instruction writes to memory: an author is `exact` only when the store at the fault's address
 * overlaps the bytes that changed.
 *
 *   who may run together    everything, with everything; in handlers store_decode and store_reach
 */
#ifndef STORE_H
#define STORE_H

#include "base.h"

/* A `rep movs` or `rep stos`: from the fault's address on, in the direction of the flag, how far is not known. */
#define STORE_REP 4096u

/*
 * How many bytes the instruction at `ip` stores to its memory operand: 1, 2, 4, 8, 10 (x87), 16, 32, 64 or STORE_REP; 0
 * when it is not known (masked stores, saved processor state, pushes and calls, other architectures) or when it stores
 * nothing. A store that crosses into the faulting page began up to that many bytes before the fault's address. `ip` may
 * be any number.
 */
unsigned store_width(uint64_t ip);

/* 1: the instruction writes memory. 0: it does not. -1: not known. */
int store_writes(uint64_t ip);

/* The same for `n` bytes of code: the width, and what store_writes gives. */
unsigned store_decode(const uint8_t *code, size_t n, int *ret_writes);

/* Which opmask register (1 to 7; 0: none) picks the lanes that a vector store writes, and how many bytes a lane has. */
struct store_mask {
	unsigned register_number, lane_bytes;
};

/*
 * How far from its operand's address on the store can reach at most, with all lanes; 0 when that is not known or it
 * repeats. glibc's memset and memcpy use masked stores for small sizes where there is AVX-512.
 */
unsigned store_reach(const uint8_t *code, size_t n, struct store_mask *ret_mask);

#endif
