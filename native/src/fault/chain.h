/*
 * chain.h -- one signal's handler of ours, and whoever had the signal before.
 *
 * Each time that we come in front of somebody else we take another place, whose handler has an address of its own and
 * knows whom it came in front of. So a handler that came after us and goes again, and puts back what it found, gives
 * the signal back to the right place; and one that hands on to what it found ends at who was there first, not at
 * itself.
 *
 *   who may run together    chain_pass: any thread, in handlers
 *                           everything else: under the engine's lock
 */
#ifndef CHAIN_H
#define CHAIN_H

#include "../base/own.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { CHAIN_PLACES = 4 };

/* A signal's action as the kernel knows it. */
struct bare_action {
	void (*handler)(int, siginfo_t *, void *);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

struct chain {
	int signal;
	void (*handlers[CHAIN_PLACES])(int, siginfo_t *, void *);
	/* Whose turn it is when the signal is not ours; under the lock, read by handlers. */
	struct sigaction before[CHAIN_PLACES];
	int place;                   /* of the handler in front, or of the last one that was; -1: never installed */
	bool is_bare;                /* what the kernel has is our handler itself: */
	struct bare_action ours;     /* it can be asked, and told by this, without the C library */
	_Atomic uint64_t n_lost;     /* how often somebody had replaced ours */
	_Atomic uint64_t touched_ns; /* CLOCK_MONOTONIC: when somebody was about to replace it; handlers; 0: settled */
};

/*
 * Makes the handlers of all places out of `handler(place, info, context)`, and the chain `name` of them. Threads that
 * have no storage run `bare_handler` instead.
 */
#define CHAIN_HANDLER(handler, n)                                                                                      \
	static void handler##_##n(int signal, siginfo_t *info, void *context)                                          \
	{                                                                                                              \
		(void)signal;                                                                                          \
		if (own_has_storage())                                                                                 \
			handler(n, info, context);                                                                     \
		else                                                                                                   \
			bare_##handler(n, info, context);                                                              \
	}
#define CHAIN_DEFINE(name, signal_number, handler)                                                                     \
	CHAIN_HANDLER(handler, 0)                                                                                      \
	CHAIN_HANDLER(handler, 1)                                                                                      \
	CHAIN_HANDLER(handler, 2)                                                                                      \
	CHAIN_HANDLER(handler, 3)                                                                                      \
	static struct chain name = { .signal = signal_number,                                                          \
				     .handlers = { handler##_0, handler##_1, handler##_2, handler##_3 },               \
				     .place = -1 }

/* Installs the handler in front of whoever has the signal; again when somebody replaced it. 0 or -errno. */
int chain_install(struct chain *chain);
/* Installs it again, and counts, when it is not in front any more. False when it was not. */
bool chain_keep(struct chain *chain);
/* Somebody is about to replace the handler. Signal-safe. */
void chain_touch(struct chain *chain);
/* Is nobody about to? A thread that was, and has not for a second, will not. */
bool chain_settled(struct chain *chain);
/*
 * Hands a foreign signal on from a place, with its siginfo intact: to the handler before, or to the default action by
 * returning. Signal-safe.
 */
void chain_pass(struct chain *chain, int place, siginfo_t *info, void *context);

#endif
