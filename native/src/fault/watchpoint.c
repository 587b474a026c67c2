/*
 * watchpoint.c -- DESIGN: a perf breakpoint event with sigtrap=1 on every thread (inherited by each that comes) sends
 * the writing thread a SIGTRAP right after each store to the variable. The handler reads the new value, takes the old
 * one from the point, and puts a hit into a ring of its own. Value and number of a point change together, in one
 * compare-and-swap of 16 bytes, and the value is read between: so the hits of a point have one order, and each one's
 * old value is the new value before it.
 *
 * The processor has four, for each thread; they are kept for the whole process. Adding and removing run under the
 * engine's lock, the handler on the writer's thread. A point that is used again has another generation; a signal of an
 * older one is ignored. The ring is made once and lives as long as the process.
 *
 * Loss: a full ring drops the newest hit; numbers tell the worker how many are missing. A thread that blocks SIGTRAP
 * gets one late signal for all that it wrote; the event's own count, which the kernel keeps, tells how many there were.
 */
#define _GNU_SOURCE
#include "watchpoint.h"

#include "fault.h"
#include "filter.h"
#include "operand.h"
#include "sentinel.h"
#include "system.h"
#include "trap.h"

#include "../base/syscalls.h"

#include <linux/hw_breakpoint.h>
#include <sched.h>
#include <string.h>

#define POINT_COOKIE (UINT64_C(0x6d777074) << 32) /* above the point's number */
#define POINT_COOKIE_MASK (UINT64_C(0xffffffff) << 32)

#define HIT_KEEP_NS (250 * NS_PER_MS) /* how long a hit may wait to be told, and its writer's stack with it */
#define PERIOD_NS (100 * NS_PER_MS)   /* over which hits of what is lent are counted, see hits.h */

enum { HITS = 32768, INDEX_BITS = 2, LENT_THREADS_MAX = 32 };
static_assert(POINTS == 1 << INDEX_BITS, "a point's number begins with its index");

#if defined(__x86_64__)

/* The last value and the number of the hit that read it. */
union word {
	unsigned __int128 whole;
	struct {
		uint64_t value, n;
	};
};

struct point {
	union word last;         /* handlers, by compare-and-swap; the worker by `correct` */
	_Atomic uint32_t number; /* generation and index, 0: free; under the engine's lock; read by handlers */
	uint32_t size_bytes;
	uint64_t address;
	_Atomic uint64_t n_lost; /* handlers */
	uint32_t lent_hits;      /* 0: not lent */
	_Atomic bool exhausted;  /* handlers */
};

#define INSIDE_NS (100 * NS_PER_MS) /* its thread may have to wait for a processor */

/* What handlers write, on pages of its own. */
static union {
	struct {
		struct point points[POINTS];
		_Atomic uint32_t n_inside[POINTS]; /* handlers that may hold the point */
		_Atomic uint64_t period_start_ns;  /* of those that are lent, */
		_Atomic uint32_t n_in_period;      /* and their hits in it */
		struct ring hits;                  /* made with the first point, kept as long as the process lives */
	};
	char pages[PAGE_BYTES];
} own __attribute__((aligned(PAGE_BYTES)));

static struct trap_events events[POINTS];
static uint32_t generation;
static bool silent;
static bool has_sentinel; /* it was asked for here */

static struct point *point_of(uint32_t number)
{
	return &own.points[number & (POINTS - 1)];
}

/* --- on the writer's thread --- */

/* One load: the variable may be written meanwhile. */
__attribute__((no_sanitize("address", "thread"))) static uint64_t load(uint64_t address, uint32_t size_bytes)
{
	const volatile void *at = (const volatile void *)(uintptr_t)address;
	switch (size_bytes) {
	case 1: return *(const volatile uint8_t *)at;
	case 2: return *(const volatile uint16_t *)at;
	case 4: return *(const volatile uint32_t *)at;
	default: return *(const volatile uint64_t *)at;
	}
}

__attribute__((target("cx16"))) static bool swap(union word *word, union word before, union word after)
{
	return __sync_bool_compare_and_swap(&word->whole, before.whole, after.whole);
}

/* May be torn; a compare-and-swap with it fails then. The number is read first: the value is not older. */
__attribute__((no_sanitize("thread"))) static union word word_guess(const union word *word)
{
	union word guess;
	guess.n = ((const volatile union word *)word)->n;
	guess.value = ((const volatile union word *)word)->value;
	return guess;
}

static void value_take(struct point *point, struct hit *hit)
{
	union word before, after;
	do {
		before = word_guess(&point->last);
		after = (union word){ .value = load(point->address, point->size_bytes), .n = before.n + 1 };
	} while (!swap(&point->last, before, after));
	hit->n = after.n;
	hit->old_value = before.value;
	hit->new_value = after.value;
}

static void hit_take(struct point *point, uint32_t number, bool late, void *context)
{
	uint64_t now_ns = time_realtime_ns();
	struct hit hit = { .time_ns = now_ns, .point = number, .address = point->address };
	/* Late, the variable may be gone; the worker looks at it with care. */
	if (!late) {
		value_take(point, &hit);
		hit.proof = (uint8_t)operand_proof(context, point->address, point->size_bytes, hit.new_value);
	}
	fault_writer(late ? NULL : context, now_ns, HIT_KEEP_NS, &hit.ip, &hit.thread_id, &hit.location);
	if (!ring_push(&own.hits, &hit) && !late)
		atomic_fetch_add_explicit(&point->n_lost, 1, memory_order_relaxed);
}

/* A lent point that is hot is silenced here: its writer must not pay until the worker passes. */
static void lent_account(struct point *point, struct trap_events *point_events)
{
	uint64_t now_ns = time_monotonic_ns(), start_ns = atomic_load(&own.period_start_ns);
	if (now_ns - start_ns > PERIOD_NS && atomic_compare_exchange_strong(&own.period_start_ns, &start_ns, now_ns))
		atomic_store(&own.n_in_period, 0);
	if (atomic_fetch_add(&own.n_in_period, 1) < point->lent_hits || atomic_exchange(&point->exhausted, true))
		return;
	trap_switch(point_events, false);
}

static void on_point_trap(struct ring *ring, const struct trap *trap, void *context)
{
	uint32_t number = (uint32_t)trap->data, index = number & (POINTS - 1);
	/* Sequentially consistent, as in remove_point: either it sees us inside or we see that the point is gone. */
	atomic_fetch_add(&own.n_inside[index], 1);
	if (atomic_load(&own.points[index].number) == number) {
		hit_take(&own.points[index], number, trap->late, context);
		ring_nudge(ring);
		if (own.points[index].lent_hits)
			lent_account(&own.points[index], &events[index]);
	}
	atomic_fetch_sub(&own.n_inside[index], 1);
}

static const struct trap_kind point_kind = { POINT_COOKIE, POINT_COOKIE_MASK, on_point_trap };

/* --- the interface --- */

static int refuse(int error)
{
	char sentence[200];
	if (error == -ENOSPC)
		return error_set(-ENOSPC, "the processor's watchpoints are in use, by a debugger or by another tool; "
					  "watch without `precise`");
	trap_refusal(error, sentence, sizeof sentence);
	return error_set(-ENOTSUP, "no hardware watchpoints: %s; or watch without `precise`", sentence);
}

static int attach_point(const struct point *point, uint32_t number)
{
	struct perf_event_attr attributes = trap_attributes(PERF_TYPE_BREAKPOINT, 0, POINT_COOKIE | number);
	attributes.bp_type = HW_BREAKPOINT_W;
	attributes.bp_addr = point->address;
	attributes.bp_len = point->size_bytes;
	return trap_attach(&events[number & (POINTS - 1)], &attributes, filter_guards() ? filter_attach_guard : NULL);
}

static int prepare(void)
{
	int error = own.hits.slots ? 0 : ring_init(&own.hits, HITS, sizeof(struct hit));
	if (error)
		return error;
	error = syscall_refused(SYSCALL_PERF_EVENT_OPEN);
	if (error)
		return refuse(error);
	trap_kind_add(&point_kind);
	error = trap_hold();
	if (error < 0)
		return error_set(error, "the handler of SIGTRAP cannot be installed: %s", strerror(-error));
	if (!filter_guards() && !sentinel_is_on()) {
		sentinel_watch(SIGTRAP, NULL);
		has_sentinel = true;
	}
	return 0;
}

/* With the last point goes what watches over its signal, where nobody else had it. */
static void release_sentinel(void)
{
	for (unsigned i = 0; i < POINTS; i++)
		if (own.points[i].number)
			return;
	if (has_sentinel)
		sentinel_unwatch(SIGTRAP);
	has_sentinel = false;
}

static int add(uint64_t address, uint32_t size_bytes, uint64_t value, uint32_t lent_hits, uint32_t *ret_point)
{
	unsigned index = 0;
	if (lent_hits && system_thread_count() > LENT_THREADS_MAX)
		return error_set(-ENOSPC, "too many threads to lend a watchpoint");
	while (index < POINTS && own.points[index].number)
		index++;
	if (index == POINTS)
		return error_set(-ENOSPC,
				 "%d regions have hardware watchpoints, which is all that there are; "
				 "remove one of them, or watch "
				 "without `precise`",
				 POINTS);
	int error = prepare();
	if (error)
		return error;
	struct point *point = &own.points[index];
	generation = generation % (UINT32_MAX >> INDEX_BITS) + 1;
	uint32_t number = generation << INDEX_BITS | index;
	point->last = (union word){ .value = value };
	point->size_bytes = size_bytes;
	point->address = address;
	point->lent_hits = lent_hits;
	atomic_store(&point->n_lost, 0);
	atomic_store(&point->exhausted, false);
	silent = trap_traced(time_monotonic_ns());
	/* Pairs with the load in on_point_trap: who sees the number sees the point. */
	atomic_store(&point->number, number);
	error = attach_point(point, number);
	if (error == -ENOSPC && !lent_hits && sentinel_yield())
		error = attach_point(point, number);
	if (error) {
		atomic_store(&point->number, 0);
		release_sentinel();
		return refuse(error);
	}
	trap_switch(&events[index], !silent);
	*ret_point = number;
	return 0;
}

/*
 * A handler may be reading the point, or about to switch its events. One that another signal's handler left by longjmp
 * never comes out: it is waited for once.
 */
static void await_handlers(unsigned index)
{
	static uint32_t n_stuck[POINTS];
	uint64_t end_ns = time_monotonic_ns() + INSIDE_NS;
	uint32_t n;
	while ((n = atomic_load(&own.n_inside[index])) > n_stuck[index] && time_monotonic_ns() < end_ns)
		sched_yield();
	n_stuck[index] = n;
}

static void remove_point(uint32_t number)
{
	struct point *point = point_of(number);
	if (atomic_load(&point->number) != number)
		return;
	trap_switch(&events[number & (POINTS - 1)], false);
	atomic_store(&point->number, 0);
	await_handlers(number & (POINTS - 1));
	trap_detach(&events[number & (POINTS - 1)]);
	release_sentinel();
}

static bool resume(uint32_t number)
{
	if (time_monotonic_ns() - atomic_load(&own.period_start_ns) <= PERIOD_NS)
		return false;
	atomic_store(&point_of(number)->exhausted, false);
	trap_switch(&events[number & (POINTS - 1)], !silent);
	return true;
}

static unsigned n_free(void)
{
	unsigned n_used = sentinel_is_on();
	for (unsigned i = 0; i < POINTS; i++)
		n_used += own.points[i].number != 0;
	return n_used < POINTS ? POINTS - n_used : 0;
}

static bool pop(struct hit *ret_hit)
{
	return ring_pop(&own.hits, ret_hit);
}

static bool waiting(void)
{
	return ring_waiting(&own.hits);
}

static void state(uint32_t number, struct hit_state *ret_state)
{
	const struct point *point = point_of(number);
	/* Before n: a loss that is not counted yet then looks like a hit on its way. */
	uint64_t n_lost = atomic_load(&point->n_lost);
	*ret_state = (struct hit_state){ .n = word_guess(&point->last).n,
					 .n_lost = n_lost,
					 .exhausted = atomic_load(&point->exhausted) };
}

static uint64_t counted(uint32_t number)
{
	return trap_count(&events[number & (POINTS - 1)]);
}

static bool correct(uint32_t number, uint64_t n, uint64_t to)
{
	struct point *point = point_of(number);
	union word before = word_guess(&point->last), after = { .value = to, .n = n };
	return before.n == n && swap(&point->last, before, after);
}

static bool tick(uint64_t now_ns)
{
	bool traced = trap_traced(now_ns);
	trap_hold();
	sentinel_tick(now_ns);
	for (unsigned i = 0; traced != silent && i < POINTS; i++)
		trap_switch(&events[i], !traced && !atomic_load(&own.points[i].exhausted));
	silent = traced;
	return silent;
}

static void fork_child(void)
{
	sentinel_fork_child();
	has_sentinel = false;
	for (unsigned i = 0; i < POINTS; i++) {
		trap_detach(&events[i]);
		atomic_store(&own.points[i].number, 0);
		atomic_store(&own.n_inside[i], 0);
	}
	ring_clear(&own.hits);
}

const struct hit_source fault_watchpoint = {
	.add = add,
	.remove = remove_point,
	.resume = resume,
	.n_free = n_free,
	.pop = pop,
	.waiting = waiting,
	.state = state,
	.counted = counted,
	.correct = correct,
	.tick = tick,
	.fork_child = fork_child,
};

#else

static int add(uint64_t address, uint32_t size_bytes, uint64_t value, uint32_t lent_hits, uint32_t *ret_point)
{
	(void)address, (void)size_bytes, (void)value, (void)lent_hits, (void)ret_point;
	return error_set(-ENOTSUP, "hardware watchpoints are used on x86-64 only; watch without `precise`");
}

static unsigned n_free(void)
{
	return 0;
}

static bool nothing(void)
{
	return false;
}

static bool no_hit(struct hit *ret_hit)
{
	return (void)ret_hit, false;
}

static void fork_child(void)
{
}

/* Without a point nobody asks for more. */
const struct hit_source fault_watchpoint = {
	.add = add,
	.n_free = n_free,
	.pop = no_hit,
	.waiting = nothing,
	.fork_child = fork_child,
};

#endif
