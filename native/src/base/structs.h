/*
 * structs.h -- structures that a program gives or gets, by their sizes; see types.h.
 */
#ifndef STRUCTS_H
#define STRUCTS_H

#include "base.h"

#include <memwatch/reader.h>

/* Reads what a program gave over the defaults in `ours`. -EINVAL with a sentence; `name` is without "memwatch_". */
int structs_take(const char *name, void *ours, size_t our_bytes, const void *given, size_t given_bytes);

/* Item `i` of a program's array. */
static inline void *structs_at(void *items, size_t i, size_t item_bytes)
{
	return (uint8_t *)items + i * item_bytes;
}

#endif
