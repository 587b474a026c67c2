/*
 * chain.c -- DESIGN: our handler stands in front of whoever had the signal, and hands on what is not ours as the kernel
 * would have delivered it. chain_pass runs in signal context on any thread; the rest under the engine's lock. Owns each
 * chain's places.
 *
 * While our handler runs every signal but a fault's waits, those with which the C library cancels threads too. So
 * nobody leaves it by a jump, a cancellation or the end of a thread, and what it has begun it ends. A handler that we
 * hand on to gets the mask that it asked for.
 *
 * The worker's own calls go past the C library's sigaction, which has the sentinel's breakpoint: a SIGTRAP of ours must
 * not meet the handler that they are about to find. Where somebody stands in for that function, as the thread sanitizer
 * does, who has the signal is known to him alone, and he is asked.
 *
 * Loss: while somebody else is in front, faults are his; chain_keep counts how often that was so. When all places are
 * taken, the last one is taken again.
 */
#define _GNU_SOURCE
#include "chain.h"

#include "../base/base.h"

#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* As the kernel has it, or takes it. */
static int bare_action(int signal, const struct bare_action *action, struct bare_action *ret_action)
{
	return syscall(SYS_rt_sigaction, signal, action, ret_action, sizeof action->mask) < 0 ? -errno : 0;
}

static int action_now(const struct chain *chain, struct sigaction *ret_action)
{
	struct bare_action now;
	if (!chain->is_bare)
		return sigaction(chain->signal, NULL, ret_action) < 0 ? -errno : 0;
	int error = bare_action(chain->signal, NULL, &now);
	if (error)
		return error;
	*ret_action = (struct sigaction){ .sa_sigaction = now.handler, .sa_flags = (int)now.flags };
	memcpy(&ret_action->sa_mask, &now.mask, sizeof now.mask);
	return 0;
}

/* The first time by the C library, which knows how a handler returns. */
static int take_signal(struct chain *chain, const struct sigaction *ours)
{
	chain->ours.handler = ours->sa_sigaction;
	if (chain->is_bare)
		return bare_action(chain->signal, &chain->ours, NULL);
	if (sigaction(chain->signal, ours, NULL) < 0)
		return -errno;
	chain->is_bare = !bare_action(chain->signal, NULL, &chain->ours) && chain->ours.handler == ours->sa_sigaction;
	return 0;
}

/* The place whose handler this is, -1: none of ours. */
static int place_of(const struct chain *chain, const struct sigaction *action)
{
	for (int i = 0; action->sa_flags & SA_SIGINFO && i < CHAIN_PLACES; i++)
		if (action->sa_sigaction == chain->handlers[i])
			return i;
	return -1;
}

/*
 * All signals, the C library's own too, which sigfillset leaves out; but not what a fault raises: that would end the
 * process.
 */
static void fill_mask(sigset_t *ret_mask)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGTRAP };
	memset(ret_mask, 0xff, sizeof *ret_mask);
	for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
		sigdelset(ret_mask, faults[i]);
}

int chain_install(struct chain *chain)
{
	struct sigaction ours = { .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK }, old;
	own_prepare();
	int error = action_now(chain, &old);
	if (error)
		return error;
	int place = place_of(chain, &old);
	if (place >= 0) {
		chain->place = place;
		return 0;
	}
	place = chain->place + 1 < CHAIN_PLACES ? chain->place + 1 : CHAIN_PLACES - 1;
	chain->before[place] = old;
	ours.sa_sigaction = chain->handlers[place];
	fill_mask(&ours.sa_mask);
	error = take_signal(chain, &ours);
	if (error)
		return error;
	chain->place = place;
	return 0;
}

bool chain_keep(struct chain *chain)
{
	struct sigaction now;
	if (action_now(chain, &now) || place_of(chain, &now) >= 0)
		return true;
	atomic_fetch_add(&chain->n_lost, 1);
	chain_install(chain);
	atomic_store(&chain->touched_ns, 0);
	return false;
}

void chain_touch(struct chain *chain)
{
	atomic_store(&chain->touched_ns, time_monotonic_ns());
}

bool chain_settled(struct chain *chain)
{
	uint64_t touched_ns = atomic_load(&chain->touched_ns);
	if (touched_ns && time_monotonic_ns() - touched_ns > NS_PER_S)
		atomic_compare_exchange_strong(&chain->touched_ns, &touched_ns, 0);
	return !atomic_load(&chain->touched_ns);
}

/*
 * The mask with which the kernel would have called the handler. Of glibc's sigset_t the kernel has the first 8 bytes
 * only.
 */
static void mask_of(const struct sigaction *action, int signal, const ucontext_t *context, sigset_t *ret_mask)
{
	uint64_t interrupted, added;
	memcpy(&interrupted, &context->uc_sigmask, sizeof interrupted);
	memcpy(&added, &action->sa_mask, sizeof added);
	interrupted |= added;
	if (!(action->sa_flags & SA_NODEFER))
		interrupted |= UINT64_C(1) << (signal - 1);
	sigemptyset(ret_mask);
	memcpy(ret_mask, &interrupted, sizeof interrupted);
}

/* Calls a handler as the kernel would, with its mask. */
static void call_handler(struct sigaction *action, int signal, siginfo_t *info, void *context)
{
	struct sigaction called = *action;
	sigset_t mask, before;
	if (called.sa_flags & (int)SA_RESETHAND)
		action->sa_handler = SIG_DFL, action->sa_flags &= ~SA_SIGINFO;
	mask_of(&called, signal, context, &mask);
	sigprocmask(SIG_SETMASK, &mask, &before);
	if (called.sa_flags & SA_SIGINFO)
		called.sa_sigaction(signal, info, context);
	else
		called.sa_handler(signal);
	sigprocmask(SIG_SETMASK, &before, NULL);
}

/*
 * A fault happens again by itself when we return and is then the crash that it was; a signal that somebody sent, or a
 * trap, which does not happen again, is queued once more with its siginfo and hits when the handler returns.
 */
static void default_action(int signal, siginfo_t *info)
{
	struct sigaction plain = { .sa_handler = SIG_DFL };
	sigaction(signal, &plain, NULL);
	if (info->si_code <= 0 || signal == SIGTRAP)
		syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), signal, info);
}

void chain_pass(struct chain *chain, int place, siginfo_t *info, void *context)
{
	struct sigaction *action = &chain->before[place];
	bool handled = action->sa_flags & SA_SIGINFO ||
		       (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN);
	if (handled)
		call_handler(action, chain->signal, info, context);
	else if (action->sa_handler != SIG_IGN || info->si_code > 0)
		default_action(chain->signal, info);
}
