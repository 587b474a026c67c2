/*
 * chain.c -- DESIGN: our handler stands in front of whoever had the signal, and hands on what is not ours as the kernel would have
 * delivered it. chain_pass runs in signal context on any thread; the rest under the engine's lock. Owns each chain's place.
 *
 * Loss: while somebody else is in front, faults are his; chain_keep counts how often that was so.
 */
#define _GNU_SOURCE
#include "chain.h"

#include "../base/base.h"

#include <sys/syscall.h>
#include <unistd.h>

/* Where this thread's stack stood when it last passed a signal on; by signal, since two chains may nest. */
static _Thread_local uintptr_t passing[2] __attribute__((tls_model("initial-exec")));

int chain_install(struct chain *chain)
{
	struct sigaction ours = { .sa_sigaction = chain->handler, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK },
			 old;
	sigemptyset(&ours.sa_mask);
	if (sigaction(chain->signal, NULL, &old) < 0)
		return -errno;
	if ((old.sa_flags & SA_SIGINFO) && old.sa_sigaction == chain->handler)
		return 0;
	chain->before = old;
	if (!chain->installed)
		chain->first = old;
	chain->installed = true;
	return sigaction(chain->signal, &ours, NULL) < 0 ? -errno : 0;
}

void chain_keep(struct chain *chain)
{
	struct sigaction now;
	if (sigaction(chain->signal, NULL, &now) < 0 ||
	    ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == chain->handler))
		return;
	atomic_fetch_add(&chain->n_lost, 1);
	chain_install(chain);
}

/* Calls a handler as the kernel would, with its mask. */
static void call_handler(struct sigaction *action, int signal, siginfo_t *info, void *context)
{
	sigset_t mask = action->sa_mask, before;
	struct sigaction called = *action;
	sigaddset(&mask, signal);
	if (called.sa_flags & (int)SA_RESETHAND)
		action->sa_handler = SIG_DFL, action->sa_flags &= ~SA_SIGINFO;
	sigprocmask(SIG_BLOCK, &mask, &before);
	if (called.sa_flags & SA_NODEFER) {
		sigemptyset(&mask);
		sigaddset(&mask, signal);
		sigprocmask(SIG_UNBLOCK, &mask, NULL);
	}
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

void chain_pass(struct chain *chain, int signal, siginfo_t *info, void *context)
{
	enum { NESTED_BYTES = 1 << 20 };
	uintptr_t here = (uintptr_t)__builtin_frame_address(0), *mark = &passing[signal == SIGTRAP], before = *mark;
	/* A handler that came after us may hand on to us, the one before it: not round again, but to whoever was first. */
	bool nested = here < before && before - here < NESTED_BYTES;
	struct sigaction *action = nested ? &chain->first : &chain->before;
	if (!(action->sa_flags & SA_SIGINFO) && action->sa_handler == SIG_IGN && info->si_code <= 0)
		return;
	if (!(action->sa_flags & SA_SIGINFO) && (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN)) {
		default_action(signal, info);
		return;
	}
	*mark = here;
	call_handler(action, signal, info, context);
	*mark = before;
}
