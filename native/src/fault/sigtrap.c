/*
 * sigtrap.c -- DESIGN: who wrote, beside uffd. A perf software page-fault event with sigtrap=1 on every thread (inherited by each
 * that comes) sends the writing thread a synchronous SIGTRAP after the kernel has resolved the fault and before the
 * write executes; the handler takes a note. Where BPF may be loaded, filter.c keeps foreign faults in the kernel.
 *
 * Otherwise foreign faults are counted, and past the budget of a period the events are disabled until the next one. While a
 * debugger traces the process they are disabled too, since it would stop at each signal.
 *
 * The handler stays installed after close: a signal that a thread held blocked may come any time later, and its default
 * action would end the process.
 *
 * Loss: an author, never a change; `absence` says why.
 */
#define _GNU_SOURCE
#include "fault.h"
#include "filter.h"
#include "step.h"
#include "watchpoint.h"

#include "../base/syscalls.h"

#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef TRAP_PERF
#define TRAP_PERF 6
#endif

#define COOKIE UINT64_C(0x6d656d7761746368) /* "memwatch": marks our events' signals */
#define PERIOD_NS (100 * NS_PER_MS)
#define SIGNAL_COST_NS 4500 /* measured, see docs/performance.md */
#define STEP_COST_NS 17000

enum { ASYNC_FLAG = 1, HANDLER_DISABLES_MAX = 64 };

/* What glibc 2.36 does not name: the end of a SIGTRAP's siginfo_t. */
struct perf_siginfo {
	int signo, error, code, pad;
	uint64_t address, data;
	uint32_t type, flags;
};

static void on_trap(int signal, siginfo_t *info, void *context);
static struct fault_chain chain = { .signal = SIGTRAP, .handler = on_trap };

static const struct page_set *wanted;
static int *events; /* one a thread that was there; changed only while nothing is enabled */
static _Atomic uint32_t n_events;
static uint32_t events_capacity;
static bool open_now, filter_on, traced;
static double budget;
static uint64_t spend_limit_ns; /* what foreign signals and steps may cost a period; UINT64_MAX: no limit */
static struct ring *wake_ring;  /* to tell the worker that we throttled */

/* What handlers write, on pages of its own. */
static union {
	struct {
		_Atomic uint64_t n_signals, n_ours, n_foreign;
		_Atomic uint64_t spent_ns; /* in this period */
		_Atomic uint64_t period_start_ns;
		_Atomic uint64_t throttled_since_ns; /* 0: not throttled */
	};
	char pages[PAGE_BYTES];
} own __attribute__((aligned(PAGE_BYTES)));
static uint64_t throttled_until_ns, throttled_total_ns, next_look_ns;
static uint64_t marks[2]; /* `outstanding` at the last mark and at the one before it */

static void events_switch(bool on)
{
	uint32_t n = atomic_load_explicit(&n_events, memory_order_acquire);
	for (uint32_t i = 0; i < n; i++)
		ioctl(events[i], on ? PERF_EVENT_IOC_ENABLE : PERF_EVENT_IOC_DISABLE, 0);
}

/* Takes a cost from the period's budget; false when that is used up. A new period begins by itself. */
static bool spend(uint64_t cost_ns)
{
	uint64_t now_ns = time_monotonic_ns(), start_ns = atomic_load(&own.period_start_ns);
	if (now_ns - start_ns > PERIOD_NS && atomic_compare_exchange_strong(&own.period_start_ns, &start_ns, now_ns))
		atomic_store(&own.spent_ns, 0);
	if (atomic_load_explicit(&own.spent_ns, memory_order_relaxed) + cost_ns > spend_limit_ns)
		return false;
	atomic_fetch_add_explicit(&own.spent_ns, cost_ns, memory_order_relaxed);
	return true;
}

/* Foreign faults past the budget: silence until the next period. */
static void throttle(void)
{
	uint64_t none = 0;
	if (!atomic_compare_exchange_strong(&own.throttled_since_ns, &none, time_monotonic_ns()))
		return;
	if (atomic_load(&n_events) <= HANDLER_DISABLES_MAX)
		events_switch(false);
	if (wake_ring)
		ring_kick(wake_ring);
}

/* A fault on one of our pages: a neighbour's is stepped over while the budget lasts, any other is noted. */
static void take(struct ring *ring, uint64_t address, void *context)
{
	atomic_fetch_add_explicit(&own.n_ours, 1, memory_order_relaxed);
	if (context && step_wanted(address, context) && spend(STEP_COST_NS))
		step_begin(address, context);
	else
		fault_note(ring, address, context);
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
	const struct perf_siginfo *perf = (const struct perf_siginfo *)info;
	bool hit = info->si_code == TRAP_PERF && watchpoint_is(perf->data);
	bool mine = info->si_code == TRAP_PERF && perf->data == COOKIE;
	int error = errno;
	if (!mine && !hit && !step_end(info->si_code, context)) {
		fault_chain_pass(&chain, signal, info, context);
	} else if (mine || hit) {
		struct ring *ring = fault_enter();
		if (ring && hit) {
			watchpoint_on_trap(ring, perf->data, perf->flags & ASYNC_FLAG, context);
		} else if (ring) {
			atomic_fetch_add_explicit(&own.n_signals, 1, memory_order_relaxed);
			if (page_set_has(wanted, perf->address))
				take(ring, perf->address, perf->flags & ASYNC_FLAG ? NULL : context);
			else if (atomic_fetch_add_explicit(&own.n_foreign, 1, memory_order_relaxed),
				 !spend(SIGNAL_COST_NS))
				throttle();
		}
		fault_leave();
	}
	errno = error;
}

/* --- events on threads --- */

static int event_open(pid_t thread)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof attr,
		.config = PERF_COUNT_SW_PAGE_FAULTS,
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_ADDR | PERF_SAMPLE_IP,
		.disabled = 1,
		.exclude_kernel = 1,
		.exclude_hv = 1,
		.sigtrap = 1,
		.remove_on_exec = 1,
		.inherit = 1,
		.inherit_thread = 1,
		.sig_data = COOKIE,
	};
	int fd = (int)syscall(SYS_perf_event_open, &attr, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int event_keep(int fd)
{
	uint32_t n = atomic_load(&n_events);
	if (n == events_capacity) {
		uint32_t capacity = events_capacity ? events_capacity * 2 : 64;
		int *grown = mem_grow(events, capacity * sizeof *grown);
		if (!grown)
			return -ENOMEM;
		events = grown;
		events_capacity = capacity;
	}
	events[n] = fd;
	/* Pairs with the acquire in events_switch. */
	atomic_store_explicit(&n_events, n + 1, memory_order_release);
	return 0;
}

static int attach(pid_t thread, void *arg)
{
	(void)arg;
	int fd = event_open(thread);
	if (fd == -ESRCH)
		return 0; /* it ended */
	int error = fd < 0 ? fd : filter_on ? filter_attach(fd) : 0;
	if (!error)
		error = event_keep(fd);
	if (error && fd >= 0)
		close(fd);
	return error;
}

static void detach_all(void)
{
	uint32_t n = atomic_exchange(&n_events, 0);
	for (uint32_t i = 0; i < n; i++)
		close(events[i]);
	mem_free(events);
	events = NULL;
	events_capacity = 0;
}

/* --- the interface --- */

/* Faults that the kernel counted for us less signals that arrived: it moves while a signal is on its way or blocked. */
static uint64_t outstanding(void)
{
	uint64_t total = 0, count;
	if (filter_on)
		return filter_passed() - atomic_load(&own.n_ours);
	for (uint32_t i = 0; i < atomic_load(&n_events); i++)
		if (read(events[i], &count, sizeof count) == sizeof count)
			total += count;
	return total - atomic_load(&own.n_signals);
}

int fault_trap_hold(void)
{
	if (!chain.installed)
		return fault_chain_install(&chain);
	fault_chain_keep(&chain);
	return 0;
}

static int refuse(int error, char *note, size_t note_size)
{
	int paranoid = fault_sysctl("/proc/sys/kernel/perf_event_paranoid");
	detach_all();
	filter_close();
	if (error == -EMFILE)
		snprintf(note, note_size,
			 "too few file descriptors: one a thread is needed; raise the limit (ulimit -n)");
	else if (paranoid > 2 && error == -EACCES)
		snprintf(note, note_size,
			 "perf_event_open(2) is refused: set kernel.perf_event_paranoid to 2 (it is %d) or "
			 "give CAP_PERFMON",
			 paranoid);
	else
		snprintf(note, note_size,
			 "perf_event_open(2): %s; in a container allow it in the seccomp profile or give "
			 "CAP_PERFMON",
			 strerror(-error));
	return -ENOTSUP;
}

static int open_sigtrap(struct ring *ring, const struct page_set *pages, double share, char *note, size_t note_size)
{
	wanted = pages;
	wake_ring = ring;
	budget = share;
	spend_limit_ns = share >= 1 ? UINT64_MAX : (uint64_t)(share * (double)PERIOD_NS);
	int error = step_open(uffd_rearm);
	if (error)
		return error;
	error = syscall_refused(SYSCALL_PERF_EVENT_OPEN);
	if (error)
		return refuse(error, note, note_size);
	filter_on = !syscall_refused(SYSCALL_BPF) && filter_open(pages) == 0;
	error = fault_chain_install(&chain);
	if (!error)
		error = fault_each_thread(attach, NULL);
	if (error && filter_on) { /* a kernel whose perf takes no such program */
		detach_all();
		filter_close();
		filter_on = false;
		error = fault_each_thread(attach, NULL);
	}
	if (error)
		return refuse(error, note, note_size);
	fault_rehearse(ring);
	marks[0] = marks[1] = outstanding();
	open_now = true;
	traced = fault_traced();
	if (traced)
		snprintf(note, note_size, "a debugger traces the process");
	else
		events_switch(true);
	return 0;
}

static void close_sigtrap(void)
{
	if (!open_now)
		return;
	events_switch(false);
	detach_all();
	filter_close();
	open_now = filter_on = false;
	atomic_store(&own.throttled_since_ns, 0);
	wake_ring = NULL;
}

static void pages_changed(struct span span, bool added)
{
	(void)added;
	if (filter_on)
		filter_update(span);
}

/* Once a second: a debugger that came or went, a handler that somebody replaced. */
static void look_around(void)
{
	bool was_traced = traced;
	traced = fault_traced();
	if (traced != was_traced)
		events_switch(!traced);
}

static uint64_t tick(uint64_t now_ns)
{
	if (!open_now)
		return 0;
	fault_chain_keep(&chain);
	if (now_ns >= next_look_ns) {
		look_around();
		next_look_ns = now_ns + NS_PER_S;
	}
	uint64_t since_ns = atomic_load(&own.throttled_since_ns);
	if (!since_ns)
		return 0;
	if (atomic_load(&n_events) > HANDLER_DISABLES_MAX)
		events_switch(false);
	uint64_t end_ns = atomic_load(&own.period_start_ns) + PERIOD_NS;
	if (now_ns < end_ns)
		return end_ns;
	throttled_total_ns += now_ns - since_ns;
	throttled_until_ns = now_ns;
	atomic_store(&own.spent_ns, 0);
	atomic_store(&own.period_start_ns, now_ns);
	atomic_store(&own.throttled_since_ns, 0);
	if (!traced)
		events_switch(true);
	return 0;
}

static void mark(void)
{
	marks[1] = marks[0];
	marks[0] = open_now ? outstanding() : 0;
}

static enum memwatch_reason absence(uint64_t since_ns)
{
	if (!open_now)
		return budget == 0 ? MEMWATCH_REASON_OFF : MEMWATCH_REASON_UNAVAILABLE;
	if (traced)
		return MEMWATCH_REASON_TRACED;
	if (atomic_load(&own.throttled_since_ns) || throttled_until_ns >= since_ns)
		return MEMWATCH_REASON_THROTTLED;
	return outstanding() == marks[1] ? MEMWATCH_REASON_KERNEL : MEMWATCH_REASON_BLOCKED;
}

static void stats(struct source_stats *ret_stats)
{
	uint64_t since_ns = atomic_load(&own.throttled_since_ns);
	*ret_stats = (struct source_stats){
		.signals = atomic_load(&own.n_signals),
		.ours = atomic_load(&own.n_ours),
		.foreign = atomic_load(&own.n_foreign),
		.stepped = step_count(),
		.throttled_ns = throttled_total_ns + (since_ns ? time_monotonic_ns() - since_ns : 0),
		.handler_lost = atomic_load(&chain.n_lost),
		.available = open_now && !traced,
		.filtered = filter_on,
	};
}

static void fork_child(void)
{
	detach_all();
	filter_close();
	step_fork_child();
	open_now = filter_on = false;
}

const struct source fault_sigtrap = {
	.name = "sigtrap",
	.open = open_sigtrap,
	.close = close_sigtrap,
	.pages_changed = pages_changed,
	.contested = step_contested,
	.contest = step_contest,
	.hold = step_hold,
	.forget = step_forget,
	.unseen = &step_pages,
	.closing = step_closing,
	.tick = tick,
	.mark = mark,
	.absence = absence,
	.stats = stats,
	.fork_child = fork_child,
};
