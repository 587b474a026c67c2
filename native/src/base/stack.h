/*
 * stack.h -- the stack of a thread as it writes: taken in the handler, kept until its callers are looked up or nobody
 * will ask. Registers, and the bytes from the stack pointer upwards; found again by the note's time and thread.
 *
 *   who may run together    stack_in_libc, stack_take, stack_release: everything, in handlers too
 *                           stack_hold, stack_forget: one thread at a time, under the pass lock
 *                           stack_of: who holds it
 *                           stack_open, stack_fork_child: when nobody else is here
 *
 * STACKS are kept. When all are taken a further one is not: that loses callers, never an author.
 */
#ifndef STACK_H
#define STACK_H

#include "base.h"

enum {
	STACKS_BITS = 7,
	STACKS = 1 << STACKS_BITS,
	STACK_BYTES = PAGE_BYTES,
#if defined(__aarch64__)
	STACK_REGISTERS = 32
#else
	STACK_REGISTERS = 17
#endif
};

struct stack {
	uint64_t ip;
	uint64_t registers[STACK_REGISTERS]; /* by the numbers that DWARF gives them */
	uint64_t start;                      /* of the bytes: the stack pointer */
	size_t n_bytes;
	const uint8_t *bytes;
};

/* Once a process. 0 or -ENOMEM with a sentence. */
int stack_open(void);
/* In the child of a fork: what the parent took is nobody's. */
void stack_fork_child(void);

/* Does this instruction belong to the C library, or to the code that the kernel lends to it? */
bool stack_in_libc(uint64_t ip);

/*
 * Takes the stack of `context`, a handler's, for the note of this time and thread. It is forgotten with the first
 * stack_forget of a time after `until_ns` (CLOCK_REALTIME), if nobody holds it. Signal-safe.
 */
void stack_take(const void *context, uint64_t time_ns, int32_t thread_id, uint64_t until_ns);

/* The number of the stack that was taken with that note, which is its caller's until released; 0: there is none. */
uint32_t stack_hold(uint64_t time_ns, int32_t thread_id);
const struct stack *stack_of(uint32_t number);
/* `number` may be 0, and that of a stack that a fork has lost. */
void stack_release(uint32_t number);
/* Frees those that nobody holds and whose time was over before `now_ns`. */
void stack_forget(uint64_t now_ns);

#endif
