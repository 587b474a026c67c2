/*
 * sigtrap.c -- DESIGN: who wrote, beside uffd. A perf software page-fault event with sigtrap=1 on every thread
 * (inherited by each that comes) sends the writing thread a synchronous SIGTRAP after the kernel has resolved the fault
 * and before the write executes; the handler takes a note. Where BPF may be loaded, filter.c keeps foreign faults in
 * the kernel.
 *
 * Otherwise foreign faults are counted, and past the budget of a period the events are disabled until the next one.
 * While a debugger traces the process they are disabled too, since it would stop at each signal.
 *
 * Loss: an author, never a change; `absence` says why.
 */
#define _GNU_SOURCE
#include "sigtrap.h"

#include "fault.h"
#include "filter.h"
#include "sentinel.h"
#include "step.h"
#include "system.h"
#include "trap.h"

#include "../base/syscalls.h"

#include <signal.h>
#include <stdio.h>

#define PAGE_COOKIE UINT64_C(0x6d656d7761746368) /* "memwatch": marks our events' signals */
#define PERIOD_NS (100 * NS_PER_MS)
#define HOLD_NS (20 * NS_PER_MS)
#define SIGNAL_COST_NS 4500 /* measured, see docs/performance.md */
#define STEP_COST_NS 17000

enum {
	HANDLER_DISABLES_MAX = 64,
	HELD_SHARE = 20 /* what it takes to look for blocked signals is at most that part of the time */
};

static const struct page_set *_Atomic wanted; /* written at the opening, read in handlers */
static struct trap_events events;
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
		_Atomic uint64_t refused_period_ns;  /* the last period in which a step was refused, by its start */
		_Atomic uint64_t refused_ns;         /* from the first refusal of a period to its end, added up */
	};
	char pages[PAGE_BYTES];
} own __attribute__((aligned(PAGE_BYTES)));
static uint64_t throttled_until_ns, throttled_total_ns;
static uint64_t next_look_ns, lost_until_ns; /* until then some of the events were not there */

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
	if (atomic_load(&events.n) <= HANDLER_DISABLES_MAX)
		trap_switch(&events, false);
	if (wake_ring)
		ring_kick(wake_ring);
}

/* No step for the rest of the period: neighbours open the page. */
static void refuse_step(void)
{
	uint64_t start_ns = atomic_load(&own.period_start_ns), now_ns = time_monotonic_ns();
	if (atomic_exchange(&own.refused_period_ns, start_ns) != start_ns && now_ns < start_ns + PERIOD_NS)
		atomic_fetch_add(&own.refused_ns, start_ns + PERIOD_NS - now_ns);
}

/* A fault on one of our pages: a neighbour's is stepped over while the budget lasts, any other is noted. */
static void take(struct ring *ring, uint64_t address, void *context)
{
	atomic_fetch_add_explicit(&own.n_ours, 1, memory_order_relaxed);
	bool wanted_step = context && step_wanted(address, context);
	if (wanted_step && spend(STEP_COST_NS)) {
		step_begin(address, context);
		return;
	}
	if (wanted_step)
		refuse_step();
	fault_note(ring, address, context);
}

static void on_page_trap(struct ring *ring, const struct trap *trap, void *context)
{
	atomic_fetch_add_explicit(&own.n_signals, 1, memory_order_relaxed);
	if (page_set_has(wanted, trap->address)) {
		take(ring, trap->address, trap->late ? NULL : context);
		return;
	}
	atomic_fetch_add_explicit(&own.n_foreign, 1, memory_order_relaxed);
	if (!spend(SIGNAL_COST_NS))
		throttle();
}

static const struct trap_kind page_kind = { PAGE_COOKIE, UINT64_MAX, on_page_trap };

/* --- the interface --- */

/* What has happened so far to faults on our pages that gave no note. */
struct unnoted {
	/* counted by the kernel less signals that arrived: it moves while one is on its way or blocked */
	uint64_t outstanding;
	uint64_t blocked, seized;
	uint64_t left_out; /* by the filter's program, which did not run; UNSTEADY: faults came while it was counted */
};

#define UNSTEADY UINT64_MAX

static uint64_t left_out_now(void)
{
	enum { TRIES = 4 };
	for (int i = 0; i < TRIES && filter_on; i++) {
		uint64_t n_runs = filter_runs(), n_faults = trap_count(&events);
		if (filter_runs() == n_runs)
			return n_faults - n_runs;
	}
	return filter_on ? UNSTEADY : 0;
}

static struct unnoted unnoted_now(void)
{
	struct filter_counts counts = filter_counts();
	uint64_t n = filter_on ? counts.passed - atomic_load(&own.n_ours)
			       : trap_count(&events) - atomic_load(&own.n_signals);
	return (struct unnoted){ n, counts.blocked, counts.seized, left_out_now() };
}

static struct unnoted marks[2]; /* at the last mark and at the one before it */

static int refuse(int error, char *note, size_t note_size)
{
	filter_close();
	filter_on = false;
	trap_refusal(error, note, note_size);
	return -ENOTSUP;
}

static int attach_all(void)
{
	struct perf_event_attr attributes = trap_attributes(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS, PAGE_COOKIE);
	return trap_attach(&events, &attributes, filter_on ? filter_attach : NULL);
}

/* With the filter where that can be. */
static int events_open(void)
{
	filter_on = !syscall_refused(SYSCALL_BPF) && filter_open(wanted) == 0;
	int error = attach_all();
	if (error && filter_on) { /* a kernel whose perf takes no such program */
		filter_close();
		filter_on = false;
		error = attach_all();
	}
	return error;
}

static int open_sigtrap(struct ring *ring, const struct backend *backend, double share, char *note, size_t note_size)
{
	wanted = backend->pages;
	wake_ring = ring;
	budget = share;
	spend_limit_ns = share >= 1 ? UINT64_MAX : (uint64_t)(share * (double)PERIOD_NS);
	int error = step_open(backend->rearm);
	if (error)
		return error;
	error = syscall_refused(SYSCALL_PERF_EVENT_OPEN);
	if (error)
		return refuse(error, note, note_size);
	trap_kind_add(&page_kind);
	error = trap_hold();
	if (!error)
		error = events_open();
	if (error)
		return refuse(error, note, note_size);
	if (!filter_guards())
		sentinel_watch(SIGTRAP, NULL);
	fault_rehearse(ring);
	marks[0] = marks[1] = unnoted_now();
	open_now = true;
	traced = trap_traced(time_monotonic_ns());
	if (traced)
		snprintf(note, note_size, "a debugger traces the process");
	else
		trap_switch(&events, true);
	return 0;
}

static void close_sigtrap(void)
{
	if (!open_now)
		return;
	trap_switch(&events, false);
	trap_detach(&events);
	filter_close();
	sentinel_unwatch(SIGTRAP);
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

/* A debugger that came or went. */
static void traced_check(uint64_t now_ns)
{
	bool was_traced = traced;
	traced = trap_traced(now_ns);
	if (traced != was_traced)
		trap_switch(&events, !traced);
}

/* Once a second: the host may have closed our events. */
static void lost_check(uint64_t now_ns)
{
	if (now_ns < next_look_ns)
		return;
	next_look_ns = now_ns + NS_PER_S;
	if (!trap_events_lost(&events))
		return;
	trap_detach(&events);
	filter_close();
	events_open();
	marks[0] = marks[1] = unnoted_now();
	lost_until_ns = now_ns;
	if (!traced && !atomic_load(&own.throttled_since_ns))
		trap_switch(&events, true);
}

/* Where nobody tells of a new handler for SIGTRAP, it is looked for often; else whenever the worker wakes. */
static uint64_t guard_tick(uint64_t now_ns)
{
	return filter_guards() || sentinel_is_on() ? sentinel_tick(now_ns) : now_ns + HOLD_NS;
}

/* How long the events have been off by now, without what counts as refused already. */
static uint64_t throttled_since(uint64_t since_ns, uint64_t now_ns)
{
	uint64_t start_ns = atomic_load(&own.period_start_ns);
	bool counted = atomic_load(&own.refused_period_ns) == start_ns;
	uint64_t from_ns = counted ? max_u64(since_ns, start_ns + PERIOD_NS) : since_ns;
	return now_ns > from_ns ? now_ns - from_ns : 0;
}

static uint64_t tick(uint64_t now_ns)
{
	if (!open_now)
		return 0;
	trap_hold();
	traced_check(now_ns);
	lost_check(now_ns);
	uint64_t since_ns = atomic_load(&own.throttled_since_ns), wish_ns = guard_tick(now_ns);
	if (!since_ns)
		return wish_ns;
	if (atomic_load(&events.n) > HANDLER_DISABLES_MAX)
		trap_switch(&events, false);
	uint64_t end_ns = atomic_load(&own.period_start_ns) + PERIOD_NS;
	if (now_ns < end_ns)
		return wish_ns ? min_u64(wish_ns, end_ns) : end_ns;
	throttled_total_ns += throttled_since(since_ns, now_ns);
	throttled_until_ns = now_ns;
	atomic_store(&own.spent_ns, 0);
	atomic_store(&own.period_start_ns, now_ns);
	atomic_store(&own.throttled_since_ns, 0);
	if (!traced)
		trap_switch(&events, true);
	return wish_ns;
}

static void mark(void)
{
	marks[1] = marks[0];
	marks[0] = open_now ? unnoted_now() : (struct unnoted){ 0 };
}

/* Do all threads have an event that is still ours? */
static bool covered(uint64_t since_ns)
{
	return lost_until_ns < since_ns && trap_silent_until_ns() < since_ns && !events.n_refused &&
	       !trap_events_lost(&events);
}

/*
 * Does a thread hold one of our signals back? What is outstanding may also be on its way. Asked of the system now and
 * then only.
 */
static bool signal_is_held(void)
{
	static uint64_t asked_until_ns;
	static bool held;
	uint64_t now_ns = time_monotonic_ns();
	if (now_ns < asked_until_ns)
		return held;
	held = system_signal_pending(SIGTRAP);
	uint64_t end_ns = time_monotonic_ns();
	asked_until_ns = end_ns + HELD_SHARE * (end_ns - now_ns);
	return held;
}

/* Has the filter's program seen every fault since the mark before the last? */
static bool was_filtered_whole(const struct unnoted *now)
{
	return now->left_out != UNSTEADY && now->left_out == marks[1].left_out;
}

static enum memwatch_reason absence(uint64_t since_ns)
{
	if (!open_now)
		return budget == 0 ? MEMWATCH_REASON_OFF : MEMWATCH_REASON_UNAVAILABLE;
	if (traced)
		return MEMWATCH_REASON_TRACED;
	if (atomic_load(&own.throttled_since_ns) || throttled_until_ns >= since_ns)
		return MEMWATCH_REASON_THROTTLED;
	if (!covered(since_ns))
		return MEMWATCH_REASON_UNAVAILABLE;
	struct unnoted now = unnoted_now();
	if (now.seized != marks[1].seized)
		return MEMWATCH_REASON_UNAVAILABLE;
	if (now.blocked != marks[1].blocked)
		return MEMWATCH_REASON_BLOCKED;
	if (now.outstanding == marks[1].outstanding)
		return was_filtered_whole(&now) ? MEMWATCH_REASON_KERNEL : MEMWATCH_REASON_UNKNOWN;
	return signal_is_held() ? MEMWATCH_REASON_BLOCKED : MEMWATCH_REASON_UNKNOWN;
}

static void stats(struct source_stats *ret_stats)
{
	uint64_t since_ns = atomic_load(&own.throttled_since_ns), now_ns = time_monotonic_ns();
	*ret_stats = (struct source_stats){
		.signals = atomic_load(&own.n_signals),
		.ours = atomic_load(&own.n_ours),
		.foreign = atomic_load(&own.n_foreign),
		.stepped = step_count(),
		.throttled_ns = throttled_total_ns + atomic_load(&own.refused_ns) +
				(since_ns ? throttled_since(since_ns, now_ns) : 0),
		.handler_lost = trap_n_lost(),
		.available = open_now && !traced,
		.filtered = filter_on,
	};
}

static void fork_child(void)
{
	trap_detach(&events);
	sentinel_fork_child();
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
