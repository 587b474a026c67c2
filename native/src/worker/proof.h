/*
 * proof.h -- has the store of a note run? The worker's, between a pass's collecting and its reading.
 */
#ifndef PROOF_H
#define PROOF_H

#include "who.h"

/*
 * Marks the window's notes whose stores are known to have run by now, and waits for others up to `patience_ns`. Have
 * all of them? Drains what has come by then. Without the engine's lock.
 */
bool proof_take(struct who *who, struct ring *ring, uint64_t patience_ns);

#endif
