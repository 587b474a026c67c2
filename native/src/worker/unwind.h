/*
 * unwind.h -- from a stack that was taken to the calls that it is made of. One thread at a time, the resolver's.
 */
#ifndef UNWIND_H
#define UNWIND_H

#include "../base/stack.h"

#include <elfutils/libdwfl.h>

struct walk {
	const struct stack *stack;
	/* Makes what is known of the code at `ip` known to libdw; false: nothing is. */
	bool (*can_unwind)(Dwfl *dwfl, uint64_t ip);
	uint64_t *ips; /* what it finds: the storing instruction, then within each call; innermost first */
	unsigned n, max;
	unsigned depth, n_outside; /* from the first outside the C library on: how many are wanted, and found */
};

/* Once a session, in which an object has been reported. False when libdw does not know how on this processor. */
bool unwind_begin(Dwfl *dwfl);
/* As far as the stack and what is known of the code go. */
void unwind(Dwfl *dwfl, struct walk *walk);

#endif
