/*
 * trap.h -- SIGTRAP and the perf events that send it: one event a thread for each purpose, one handler for all
 * purposes.
 *
 *   who may run together    trap_silence, trap_switch with `on` false: any thread, in handlers too
 *                           everything else: under the engine's lock
 */
#ifndef TRAP_H
#define TRAP_H

#include "../base/descriptor.h"
#include "../base/ring.h"

#include "chain.h"

#include <linux/perf_event.h>

/* What an event's signal says. */
struct trap {
	uint64_t data; /* the event's sig_data */
	uint64_t address;
	bool late; /* the thread had blocked the signal: the context is not the writer's */
};

/* A purpose: whose events carry this cookie, and what happens at their signals. */
struct trap_kind {
	uint64_t cookie, cookie_mask;
	/* Signal-safe. `context` is where the thread is now. */
	void (*on_trap)(struct ring *ring, const struct trap *trap, void *context);
};

/* From now on signals with the kind's cookie are its own; for as long as the process lives. */
void trap_kind_add(const struct trap_kind *kind);

/* Puts the handler of SIGTRAP in front, the first time or again, and enables what was silent meanwhile. 0 or -errno. */
int trap_hold(void);
/* Somebody is about to take SIGTRAP: disables all events until it is ours again. Signal-safe. */
void trap_silence(void);
bool trap_is_silent(void);
/* Until when events were silent (CLOCK_MONOTONIC); UINT64_MAX: they are. */
uint64_t trap_silent_until_ns(void);
/* Where its handlers are, one for each of the chain's places. */
uint64_t trap_handler(int place);
/* How often somebody had replaced it. */
uint64_t trap_n_lost(void);

/* The events of one purpose: one a thread that was there; those that began later inherit. */
struct trap_events {
	/* written under the lock; read by handlers, so that what is too small is kept */
	struct descriptor *_Atomic list;
	_Atomic uint32_t n;
	uint32_t capacity;
	uint32_t n_refused; /* threads that have none, for want of descriptors */
	uint32_t looked_at; /* the next that trap_events_lost looks at */
	bool any_lost;      /* the host has closed one: found by trap_count */
	_Atomic bool on;    /* wanted; what trap_silence takes away comes back by it */
	bool first;         /* comes back before the others */
};

/* What all our events have in common. */
struct perf_event_attr trap_attributes(uint32_t type, uint64_t config, uint64_t data);
/*
 * Opens one on every thread; `prepare` (may be NULL) gets each descriptor before it counts. 0, or -errno with none
 * open. Threads for which the limit leaves no descriptor are counted, the first one must have one.
 */
int trap_attach(struct trap_events *events, const struct perf_event_attr *attributes, int (*prepare)(int fd));
void trap_detach(struct trap_events *events);
/* Has the host closed any, or are there none? Looks at one, in turn: whoever closes ours seldom closes one alone. */
bool trap_events_lost(struct trap_events *events);
/* Enables or disables them all; not while somebody else has SIGTRAP. */
void trap_switch(struct trap_events *events, bool on);
/* How many events the kernel has counted. */
uint64_t trap_count(struct trap_events *events);
/* Does a debugger trace the process? Asked of the system ten times a second at most. */
bool trap_traced(uint64_t now_ns);
/* Why perf_event_open failed with `error`, and what to do. */
void trap_refusal(int error, char *ret_sentence, size_t size_bytes);

#endif
