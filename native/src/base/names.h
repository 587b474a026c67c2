/*
 * names.h -- names of threads that left a note, kept for when they have ended. Any thread may write, handlers too, and
 * any may read; nobody waits.
 */
#ifndef NAMES_H
#define NAMES_H

#include "base.h"

enum { THREAD_NAME_BYTES = 16 }; /* as the kernel has it, with its NUL */

/* Touches its pages, which a handler must not be the first to do. */
void names_open(void);
/* Keeps the name that the calling thread has now. Signal-safe. */
void names_keep(int32_t thread_id);
/* The name that the thread had when it was kept last; "" when that is not known any more. */
void names_find(int32_t thread_id, char ret_name[THREAD_NAME_BYTES]);

#endif
