/*
 * own.c -- DESIGN: a mark on the thread itself, which handlers read; it is set by the thread and goes with it.
 */
#include "own.h"

#include <memwatch/reader.h>

/* initial-exec: a handler's first touch must not allocate. */
static _Thread_local bool is_own __attribute__((tls_model("initial-exec")));

void memwatch_thread_own(void)
{
	is_own = true;
}

bool own_thread(void)
{
	return is_own;
}
