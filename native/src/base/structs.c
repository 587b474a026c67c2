/*
 * structs.c -- DESIGN: structures that cross the border between a program and a library of different ages; see types.h.
 * Any thread; owns nothing.
 */
#include "structs.h"

#include <string.h>

/* A size that no structure has: one that nobody filled in. */
enum { STRUCT_MAX = 4096 };

int memwatch_struct_read(void *ours, size_t our_bytes, const void *given, size_t given_bytes)
{
	const uint8_t *bytes = given;
	if (!given || given_bytes <= sizeof given_bytes || given_bytes > STRUCT_MAX ||
	    given_bytes % sizeof given_bytes != 0)
		return -EINVAL;
	for (size_t i = our_bytes; i < given_bytes; i++)
		if (bytes[i])
			return -E2BIG;
	memcpy(ours, given, min_u64(our_bytes, given_bytes));
	return 0;
}

void memwatch_struct_write(void *theirs, size_t their_bytes, const void *ours, size_t our_bytes)
{
	size_t n = (size_t)min_u64(their_bytes, our_bytes);
	memcpy(theirs, ours, n);
	memset((uint8_t *)theirs + n, 0, their_bytes - n);
}

int structs_take(const char *name, void *ours, size_t our_bytes, const void *given, size_t given_bytes)
{
	int error = memwatch_struct_read(ours, our_bytes, given, given_bytes);
	if (error == -E2BIG)
		return error_set(-EINVAL,
				 "a member of struct memwatch_%s is set that this library, %s, does not know: leave it "
				 "out, or run with the library that the program's header came with",
				 name, MEMWATCH_VERSION);
	return error ? error_set(error, "struct_bytes of struct memwatch_%s is not set: %s", name,
				 strstr(name, "options") ? "its _init function does that"
							 : "it is the structure's size")
		     : 0;
}
