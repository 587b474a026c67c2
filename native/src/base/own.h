/*
 * own.h -- threads that serve memwatch: what they write is nobody's, and what they do is no host's. See
 * memwatch_thread_own in reader.h.
 */
#ifndef OWN_H
#define OWN_H

#include "base.h"

/* Does the calling thread? Signal-safe. */
bool own_thread(void);

#endif
