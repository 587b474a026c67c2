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
 * How many bytes the instruction at `ip` stores to its memory operand: 1, 2, 4, 8, 10 (x87), 16, 32, 64 or STORE_REP; 0 when it is not
 * known (masked stores, saved processor state, pushes and calls, other architectures) or when it stores nothing. A store that crosses into the
 * faulting page began up to that many bytes before the fault's address. `ip` may be any number.
 */
unsigned store_width(uint64_t ip);

/* 1: the instruction writes memory. 0: it does not. -1: not known. */
int store_writes(uint64_t ip);

/* The same for `n` bytes of code: the width, and what store_writes gives. */
unsigned store_decode(const uint8_t *code, size_t n, int *ret_writes);

/*
 * How far from the fault's address on the store can reach at most, masked vector stores (which glibc's memset and memcpy use
 * for small sizes) by their whole width; 0 when that is not known or it repeats.
 */
unsigned store_reach(const uint8_t *code, size_t n);

#endif
