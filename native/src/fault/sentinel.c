/*
 * sentinel.c -- DESIGN: a signal's action can be changed at any time, by anybody, and the next fault is then his, or
 * the end of the process. No system call tells of it. But nearly every change goes through one function of the C
 * library; a breakpoint on its first instruction, on every thread, sends a SIGTRAP to the thread that is about to run
 * it, with its arguments still in the registers.
 *
 * Opened and closed under the engine's lock; told in a handler.
 *
 * The breakpoint is met by every call, whatever signal it asks about. Past a number of calls it falls silent, and all
 * of our events with it, as if the call were about SIGTRAP: the host's time is worth more than its authors.
 *
 * Loss: a change made by a bare system call, or where the processor has no breakpoint left, is found at the next look.
 */
#define _GNU_SOURCE
#include "sentinel.h"

#include "trap.h"

#include "../base/own.h"

#include <linux/hw_breakpoint.h>
#include <signal.h>
#include <ucontext.h>

#define ACTION_COOKIE UINT64_C(0x6d77616374696f6e) /* "mwaction" */

enum { WATCHES = 2, CALLS_MAX = 256 }; /* so many calls a period cost some 1 % of it */

#define PERIOD_NS (100 * NS_PER_MS)
#define SILENT_TICK_NS (10 * NS_PER_MS)

/* Written under the lock; read by handlers. */
static struct watch {
	_Atomic int signal; /* 0: none */
	void (*_Atomic before_change)(void);
} watches[WATCHES];

static struct trap_events events;

/* What handlers write, on pages of its own. */
static union {
	struct {
		_Atomic uint64_t period_start_ns;
		_Atomic uint32_t n_in_period;
	};
	char pages[PAGE_BYTES];
} own __attribute__((aligned(PAGE_BYTES)));

/* Has the host called too often in this period? A new one begins by itself. */
static bool is_called_too_often(void)
{
	uint64_t now_ns = time_monotonic_ns(), start_ns = atomic_load(&own.period_start_ns);
	if (now_ns - start_ns > PERIOD_NS && atomic_compare_exchange_strong(&own.period_start_ns, &start_ns, now_ns))
		atomic_store(&own.n_in_period, 0);
	return atomic_fetch_add(&own.n_in_period, 1) >= CALLS_MAX;
}

/* The arguments of the call that is about to begin: the signal, and whether its action is to change. */
static int changed_signal(const ucontext_t *context)
{
#if defined(__x86_64__)
	return context->uc_mcontext.gregs[REG_RSI] ? (int)context->uc_mcontext.gregs[REG_RDI] : 0;
#elif defined(__aarch64__)
	return context->uc_mcontext.regs[1] ? (int)context->uc_mcontext.regs[0] : 0;
#else
	return (void)context, 0;
#endif
}

/* Without SIGTRAP nothing more can be told: then all are. */
static void on_action_trap(struct ring *ring, const struct trap *trap, void *context)
{
	int signal = trap->late ? 0 : changed_signal(context);
	if (!own_thread() && is_called_too_often()) /* our worker looks after the handler by itself */
		signal = SIGTRAP;
	bool told = signal == SIGTRAP;
	if (told)
		trap_silence();
	for (int i = 0; signal && i < WATCHES; i++) {
		int watched = atomic_load(&watches[i].signal);
		if (!watched || watched == SIGTRAP || (watched != signal && signal != SIGTRAP))
			continue;
		atomic_load (&watches[i].before_change)();
		told = true;
	}
	if (told) /* the worker puts our handler back in front */
		ring_kick(ring);
}

static const struct trap_kind action_kind = { ACTION_COOKIE, UINT64_MAX, on_action_trap };

static int attach(void)
{
	struct perf_event_attr attributes = trap_attributes(PERF_TYPE_BREAKPOINT, 0, ACTION_COOKIE);
	int (*function)(int, const struct sigaction *, struct sigaction *) = sigaction;
	attributes.bp_type = HW_BREAKPOINT_X;
	attributes.bp_addr = (uintptr_t)function;
	attributes.bp_len = sizeof(long);
	trap_kind_add(&action_kind);
	int error = trap_hold();
	events.first = true;
	if (!error)
		error = trap_attach(&events, &attributes, NULL);
	if (!error)
		trap_switch(&events, true);
	return error;
}

int sentinel_watch(int signal, void (*before_change)(void))
{
	for (int i = 0; i < WATCHES; i++) {
		int taken = atomic_load(&watches[i].signal);
		if (taken && taken != signal)
			continue;
		atomic_store(&watches[i].before_change, before_change);
		atomic_store(&watches[i].signal, signal);
		break;
	}
	return sentinel_is_on() ? 0 : attach();
}

void sentinel_unwatch(int signal)
{
	bool any = false;
	for (int i = 0; i < WATCHES; i++) {
		if (atomic_load(&watches[i].signal) == signal)
			atomic_store(&watches[i].signal, 0);
		any |= atomic_load(&watches[i].signal) != 0;
	}
	if (!any)
		trap_detach(&events);
}

bool sentinel_yield(void)
{
	bool had = sentinel_is_on();
	trap_detach(&events);
	return had;
}

uint64_t sentinel_tick(uint64_t now_ns)
{
	static uint64_t next_look_ns; /* under the lock */
	if (!sentinel_is_on())
		return 0;
	if (atomic_load(&events.on) == trap_traced(now_ns))
		trap_switch(&events, !trap_traced(now_ns));
	if (now_ns >= next_look_ns && trap_events_lost(&events)) {
		trap_detach(&events);
		attach();
	}
	if (now_ns >= next_look_ns)
		next_look_ns = now_ns + NS_PER_S;
	return trap_is_silent() ? now_ns + SILENT_TICK_NS : 0;
}

bool sentinel_is_on(void)
{
	return atomic_load(&events.n) != 0;
}

void sentinel_fork_child(void)
{
	trap_detach(&events);
	for (int i = 0; i < WATCHES; i++)
		atomic_store(&watches[i].signal, 0);
}
