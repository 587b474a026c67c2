/*
 * chain.h -- one signal's handler of ours, and whoever had the signal before.
 *
 *   who may run together    chain_pass: any thread, in handlers
 *                           everything else: under the engine's lock
 */
#ifndef CHAIN_H
#define CHAIN_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct chain {
	int signal;
	void (*handler)(int, siginfo_t *, void *);
	struct sigaction before; /* whose turn it is when the signal is not ours */
	struct sigaction first;  /* who had it when we came: when `before` hands a signal back to us */
	bool installed;          /* ever */
	_Atomic uint64_t n_lost; /* how often somebody had replaced ours */
};

/* Installs the handler in front of whoever has the signal; again when somebody replaced it. 0 or -errno. */
int chain_install(struct chain *chain);
/* Installs it again, and counts, when it is not in front any more. */
void chain_keep(struct chain *chain);
/* Hands a foreign signal on with its siginfo intact: to the handler before, or to the default action by returning. Signal-safe. */
void chain_pass(struct chain *chain, int signal, siginfo_t *info, void *context);

#endif
