/*
 * own.h -- threads that serve memwatch: what they write is nobody's, and what they do is no host's. See
 * memwatch_thread_own in reader.h.
 */
#ifndef OWN_H
#define OWN_H

#include "base.h"

/* Does the calling thread? Signal-safe. */
bool own_thread(void);

/*
 * Has the calling thread what the C library keeps for each? One that was made by clone(2) alone may not: errno and all
 * that is _Thread_local are a crash there. Signal-safe. own_prepare goes before, outside of handlers.
 */
void own_prepare(void);
bool own_has_storage(void);

#endif
