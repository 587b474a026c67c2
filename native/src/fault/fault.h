/*
 * fault.h -- what the backends and the source of notes share: taking a note on the writer's thread.
 */
#ifndef FAULT_H
#define FAULT_H

#include "../base/backend.h"

/*
 * Brackets everything that a handler does with the ring; fault_enter gives the ring or NULL when nobody listens any
 * more. Signal-safe.
 */
struct ring *fault_enter(void);
void fault_leave(void);
/*
 * Sets the ring that notes go to. With NULL, waits until no handler holds the old one, for a second at most: false when
 * one holds it still, which may then never let go. Blocks.
 */
bool fault_ring_set(struct ring *ring);

/* How many calling frames the frame hook is asked for. */
void fault_depth_set(unsigned depth);
unsigned fault_depth(void);
/* In the child of a fork: nobody listens. */
void fault_fork_child(void);

/* Takes a note. `context` is the handler's, NULL when it is not the writer's (the signal came late). Signal-safe. */
void fault_note(struct ring *ring, uint64_t address, void *context);

/*
 * Who runs `context` (NULL: not known): its instruction pointer, thread and the interpreter's location. Where its
 * callers are wanted its stack is taken, for the note of `time_ns`, and kept for `keep_ns`. Signal-safe.
 */
void fault_writer(void *context, uint64_t time_ns, uint64_t keep_ns, uint64_t *ret_ip, int32_t *ret_thread_id,
		  uint32_t *ret_location);

/*
 * Takes a note for address 0 outside any handler, so that all that handlers call is bound: binding it lazily in a
 * handler would write to a page that may be armed.
 */
void fault_rehearse(struct ring *ring);

#endif
