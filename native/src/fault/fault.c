/*
 * fault.c -- DESIGN: what every way of catching a fault needs. fault_note runs on the writer's thread in signal context
 * and is the heart of the handlers: time, thread, frame, ring. It allocates nothing and takes no lock. The rest runs
 * when an engine comes or goes.
 *
 * Loss: none here; a full ring counts the note that it drops.
 */
#define _GNU_SOURCE
#include "fault.h"

#include "../base/location.h"
#include "../base/names.h"
#include "../base/own.h"
#include "../base/stack.h"

#include <memwatch/reader.h>

#include <sched.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* What handlers write stands on pages of its own, which nobody can ask us to watch. */
static union {
	struct {
		_Atomic uint32_t n_inside;
	};
	char pages[PAGE_BYTES];
} own __attribute__((aligned(PAGE_BYTES)));

/* Written by fault_ring_set and memwatch_frame_hook_set; read by handlers. */
static struct ring *_Atomic listening;
static uint32_t (*_Atomic frame_hook)(void *ucontext, unsigned depth);
static _Atomic unsigned frame_depth = 1;

static uint32_t n_stuck; /* of n_inside, those that never come out; under the engine's lock */

/* initial-exec: a handler's first touch must not allocate. */
static _Thread_local int32_t own_thread_id __attribute__((tls_model("initial-exec")));

void memwatch_frame_hook_set(uint32_t (*hook)(void *ucontext, unsigned depth))
{
	atomic_store(&frame_hook, hook);
}

void fault_depth_set(unsigned depth)
{
	atomic_store(&frame_depth, depth);
}

unsigned fault_depth(void)
{
	return atomic_load(&frame_depth);
}

struct ring *fault_enter(void)
{
	/* Sequentially consistent, as in fault_ring_set: either it sees us inside or we see NULL. */
	atomic_fetch_add(&own.n_inside, 1);
	return atomic_load(&listening);
}

void fault_leave(void)
{
	atomic_fetch_sub(&own.n_inside, 1);
}

/*
 * A thread that ended in its handler, with the process that it shared the memory with, never lowers the count: it is
 * left out from then on.
 */
bool fault_ring_set(struct ring *ring)
{
	uint64_t deadline_ns = time_monotonic_ns() + NS_PER_S;
	atomic_store(&listening, ring);
	while (!ring && atomic_load(&own.n_inside) > n_stuck) {
		if (time_monotonic_ns() > deadline_ns) {
			n_stuck = atomic_load(&own.n_inside);
			return false;
		}
		sched_yield();
	}
	return true;
}

void fault_fork_child(void)
{
	atomic_store(&listening, NULL);
	atomic_store(&own.n_inside, 0);
	n_stuck = 0;
	own_thread_id = 0;
}

static uint64_t instruction_pointer(const void *context)
{
	const ucontext_t *u = context;
#if defined(__x86_64__)
	return (uint64_t)u->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
	return u->uc_mcontext.pc;
#else
	(void)u;
	return 0;
#endif
}

/* Of who stores within the C library, its caller; more of them where the host has asked for a depth. */
static bool wants_callers(uint64_t ip, uint32_t location, unsigned depth)
{
	return location ? depth > 1 && stack_in_libc(ip) : depth > 1 || stack_in_libc(ip);
}

void fault_writer(void *context, uint64_t time_ns, uint64_t keep_ns, uint64_t *ret_ip, int32_t *ret_thread_id,
		  uint32_t *ret_location)
{
	unsigned depth = atomic_load_explicit(&frame_depth, memory_order_relaxed);
	if (!own_thread_id) {
		own_thread_id = (int32_t)syscall(SYS_gettid);
		names_keep(own_thread_id);
	}
	uint32_t (*hook)(void *, unsigned) = atomic_load_explicit(&frame_hook, memory_order_acquire);
	*ret_ip = context ? instruction_pointer(context) : 0;
	*ret_thread_id = own_thread_id;
	if (own_thread()) {
		*ret_location = MEMWATCH_LOCATION_OWN;
		return;
	}
	*ret_location = hook && context ? hook(context, depth) : 0;
	if (context && *ret_location != MEMWATCH_LOCATION_OWN && wants_callers(*ret_ip, *ret_location, depth))
		stack_take(context, time_ns, own_thread_id, time_ns + keep_ns);
}

void fault_note(struct ring *ring, uint64_t address, void *context)
{
	uint64_t now_ns = time_realtime_ns();
	struct note note = { .time_ns = now_ns, .address = address };
	fault_writer(context, now_ns, 0, &note.ip, &note.thread_id, &note.location);
	if (ring_push(ring, &note))
		ring_nudge(ring);
}

void fault_rehearse(struct ring *ring)
{
	memwatch_location_intern("", 0, "", 0, 0, 0);
	fault_note(ring, 0, NULL);
}
