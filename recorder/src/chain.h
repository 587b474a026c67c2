/*
 * chain.h -- what an event did to its variable's value.
 */
#ifndef RECORDER_CHAIN_H
#define RECORDER_CHAIN_H

#include "run_state.h"

enum chain {
	CHAIN_NONE,  /* no event yet */
	CHAIN_KNOWN, /* a patch may follow */
	CHAIN_LOST   /* the value after the last event is not known */
};

/* What the event's own row shows of the values. */
struct chain_cells {
	const uint8_t *before, *after; /* NULL: nothing */
	size_t before_bytes, after_bytes;
	bool are_numbers; /* else bytes, or text */
	bool is_told;     /* all that changed is in the row or its patches */
};

/* Records it; `variable` was touched. */
int chain_add(struct run *run, struct known *variable, const struct memwatch_event *event,
	      struct chain_cells *ret_cells);

/* Whether the rows of a region carry its whole value: a number, or what an adapter shows. */
bool chain_is_whole(const struct memwatch_event *event);

#endif
