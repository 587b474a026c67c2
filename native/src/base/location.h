/*
 * location.h -- source locations by number, so that a note stays 32 bytes: a fixed table, filled in handlers, never
 * emptied.
 *
 *   who may run together    everything, with everything, in handlers too (but location_open, once)
 */
#ifndef LOCATION_H
#define LOCATION_H

#include "base.h"

enum {
	LOCATIONS_MAX = 1 << 15,
	LOCATION_TEXT_BYTES = 1 << 21, /* all file and function names */
	LOCATION_FILE_MAX = 400,       /* of a longer path the end is kept */
	LOCATION_FUNCTION_MAX = 200    /* of a longer name the beginning */
};

/* Makes the tables, once a process. 0 or -ENOMEM. */
int location_open(void);

/* The frames of `location` and its callers, innermost first; up to `n`. Returns how many. */
unsigned location_frames(uint32_t location, struct memwatch_frame *frames, unsigned n);

void location_stats(uint64_t *ret_locations, uint64_t *ret_dropped);

#endif
