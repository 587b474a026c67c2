/*
 * hits.h -- what the hardware watchpoints hand to the worker: every write to a watched variable of 1, 2, 4 or 8 bytes,
 * as it happened. The floor between fault/watchpoint.c, which makes hits, and worker/precise.c, which reads them.
 *
 *   who may run together    pop: the worker alone, under the engine's lock
 *                           waiting: any thread, any time
 *                           everything else: under the engine's lock
 */
#ifndef HITS_H
#define HITS_H

#include "base.h"

enum { POINTS = 4, POINT_BYTES = 8 };

/* Is the value that a hit read the one that its own thread stored? Registers and code may tell. */
enum hit_proof { HIT_UNPROVEN, HIT_PROVEN, HIT_DISPROVEN };

/* One write. A time of 0 marks a slot of the ring that is empty or still being written. */
struct hit {
	_Alignas(CACHE_LINE) _Atomic uint64_t
		time_ns; /* CLOCK_REALTIME; written last by the producer, zeroed by the consumer */
	uint64_t n;  /* its number at its point, from 1; 0: a late signal, which tells only that there were writes */
	uint64_t ip; /* of the instruction after the store */
	uint64_t address;
	uint64_t old_value, new_value; /* in their first bytes */
	uint32_t point;
	int32_t thread_id;
	uint32_t location; /* see location.h; 0: not in the interpreter */
	uint8_t proof;     /* enum hit_proof */
	bool uncertain;    /* the worker's: another thread may have stored what was read */
};
static_assert(sizeof(struct hit) == CACHE_LINE, "a hit is a cache line");

/* Where a point stands. `n_lost` of its `n` hits found the ring full. */
struct hit_state {
	uint64_t n, n_lost;
	bool exhausted; /* a lent one that was hit too often: it is silent until it is resumed */
};

struct hit_source {
	/*
	 * Watches `size_bytes` (1, 2, 4 or 8, aligned) at `address` on every thread; `value` is what is there as far as
	 * the caller knows. `ret_point` is never 0. `lent_hits`: so many hits of what is lent silence it for the rest
	 * of 100 ms; 0: it is for keeps. What is lent is refused where it would cost much. -ENOSPC when all are taken,
	 * -ENOTSUP when the machine has none, each with a sentence.
	 */
	int (*add)(uint64_t address, uint32_t size_bytes, uint64_t value, uint32_t lent_hits, uint32_t *ret_point);
	void (*remove)(uint32_t point);
	/* An exhausted one may go on, when its 100 ms are over; false when they are not. */
	bool (*resume)(uint32_t point);
	/* Of those that the processor has: others, such as a debugger, may hold some of these. */
	unsigned (*n_free)(void);
	bool (*pop)(struct hit *ret_hit);
	bool (*waiting)(void);
	void (*state)(uint32_t point, struct hit_state *ret_state);
	/*
	 * How many writes the hardware has seen; those without a hit are on their way or come from threads that block
	 * SIGTRAP.
	 */
	uint64_t (*counted)(uint32_t point);
	/*
	 * The value became `to` without a write of the process: the next hit's old value is that. False when there was
	 * a hit after the `n`th.
	 */
	bool (*correct)(uint32_t point, uint64_t n, uint64_t to);
	/*
	 * Now and then, while there are points: ownership of the handler, debuggers. True while points are silent for a
	 * debugger.
	 */
	bool (*tick)(uint64_t now_ns);
	/* In the child of a fork: its writes are its own. */
	void (*fork_child)(void);
};

#endif
