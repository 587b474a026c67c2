/*
 * maps.h -- the mappings of the process, as /proc/self/maps lists them. Allocates as stdio does; not for handlers.
 */
#ifndef MAPS_H
#define MAPS_H

#include "base.h"

struct mapping {
	uint64_t start, end;
	bool readable, writable, executable, shared, file;
};

/*
 * Shows `take` the mappings that hold bytes of [start, end), in order, each with its path ("": it has none), until it
 * returns false. 0, or a negative errno when they cannot be read.
 */
int maps_each(uint64_t start, uint64_t end, bool (*take)(const struct mapping *mapping, const char *path, void *arg),
	      void *arg);

/* The first `n` of them; how many there are, 0 when they cannot be read. */
size_t maps_list(uint64_t start, uint64_t end, struct mapping *ret_mappings, size_t n);

#endif
