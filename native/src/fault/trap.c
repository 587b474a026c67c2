/*
 * trap.c -- DESIGN: perf events with sigtrap=1 send the thread that met them a synchronous SIGTRAP. This file owns the
 * signal: its handler asks the kinds, in the order in which they came, whose cookie the signal carries. The trap that
 * ends a step (step.c) carries none. Anything else goes down the chain. The handler runs on the writer's thread, the
 * rest under the engine's lock.
 *
 * There is no event that threads share: the kernel refuses sigtrap to those of a CPU or of a cgroup (EINVAL, Linux
 * 6.18), and a thread inherits only from the one that begins it. Threads past the limit on descriptors have none.
 *
 * The handler stays installed after close: a signal that a thread held blocked may come any time later, and its default
 * action would end the process.
 *
 * Loss: while somebody else has the signal, what our events say is his; the chain counts how often that was so.
 */
#define _GNU_SOURCE
#include "trap.h"

#include "fault.h"
#include "step.h"
#include "system.h"

#include "../base/syscalls.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef TRAP_PERF
#define TRAP_PERF 6
#endif

enum { KINDS_MAX = 4, SETS_MAX = 8, ASYNC_FLAG = 1 };

#define RETURN_NS (20 * NS_PER_MS)
#define LOOK_NS (100 * NS_PER_MS) /* a debugger that attaches stops at our signals for so long */

/* What glibc 2.36 does not name: the end of a SIGTRAP's siginfo_t. */
struct perf_siginfo {
	int signo, error, code, pad;
	uint64_t address, data;
	uint32_t type, flags;
};

static void on_trap(int place, siginfo_t *info, void *context);
static void bare_on_trap(int place, siginfo_t *info, void *context);
CHAIN_DEFINE(chain, SIGTRAP, on_trap);

/* Written by trap_kind_add, once each; read by handlers. */
static const struct trap_kind *_Atomic kinds[KINDS_MAX];

/* --- the signal --- */

void trap_kind_add(const struct trap_kind *kind)
{
	for (int i = 0; i < KINDS_MAX && atomic_load(&kinds[i]) != kind; i++) {
		const struct trap_kind *none = NULL;
		if (atomic_compare_exchange_strong(&kinds[i], &none, kind))
			return;
	}
}

static const struct trap_kind *kind_of(const siginfo_t *info, uint64_t data)
{
	const struct trap_kind *kind;
	for (int i = 0; info->si_code == TRAP_PERF && i < KINDS_MAX && (kind = atomic_load(&kinds[i])); i++)
		if ((data & kind->cookie_mask) == kind->cookie)
			return kind;
	return NULL;
}

static void on_trap(int place, siginfo_t *info, void *context)
{
	const struct perf_siginfo *perf = (const struct perf_siginfo *)info;
	const struct trap_kind *kind = kind_of(info, perf->data);
	int error = errno;
	if (kind) {
		struct trap trap = { perf->data, perf->address, perf->flags & ASYNC_FLAG };
		struct ring *ring = fault_enter();
		if (ring)
			kind->on_trap(ring, &trap, context);
		fault_leave();
	} else if (!step_end(info->si_code, context)) {
		chain_pass(&chain, place, info, context);
	}
	errno = error;
}

/* A thread without storage is no known author, and its steps are none of ours. */
static void bare_on_trap(int place, siginfo_t *info, void *context)
{
	const struct perf_siginfo *perf = (const struct perf_siginfo *)info;
	if (!kind_of(info, perf->data))
		chain_pass(&chain, place, info, context);
}

/* Every set of events that was ever attached; written under the lock, read by handlers. */
static struct trap_events *_Atomic sets[SETS_MAX];
static _Atomic bool silent;
static uint64_t silent_until_ns, returning_ns, lost_ns; /* under the lock; 0: not on the way back, never lost */

static void set_add(struct trap_events *events)
{
	int i = 0;
	while (i < SETS_MAX && atomic_load(&sets[i]) && atomic_load(&sets[i]) != events)
		i++;
	if (i < SETS_MAX)
		atomic_store(&sets[i], events);
}

static void events_apply(const struct trap_events *events, bool on)
{
	/* Pairs with the release in event_keep. */
	uint32_t n = atomic_load_explicit(&events->n, memory_order_acquire);
	const struct descriptor *list = atomic_load(&events->list);
	for (uint32_t i = 0; i < n; i++)
		if (descriptor_is_ours(&list[i]))
			ioctl(list[i].fd, on ? PERF_EVENT_IOC_ENABLE : PERF_EVENT_IOC_DISABLE, 0);
}

static void sets_apply(bool on, bool first_only)
{
	struct trap_events *events;
	for (int i = 0; i < SETS_MAX && (events = atomic_load(&sets[i])); i++)
		if (atomic_load(&events->on) && (events->first || !first_only))
			events_apply(events, on);
}

void trap_silence(void)
{
	chain_touch(&chain);
	atomic_store(&silent, true);
	sets_apply(false, false);
}

/* Puts our handler back in front; false: it was not there. Who has taken the signal may do so again. */
static bool keep(void)
{
	bool kept = chain_keep(&chain);
	if (!kept)
		lost_ns = time_monotonic_ns();
	return kept;
}

/*
 * The sentinel's events come back first, the others a moment later: a thread that had passed the sentinel's place when
 * it came back has changed the action by then, and it is found.
 */
static void end_silence(void)
{
	uint64_t now_ns = time_monotonic_ns();
	if (!returning_ns) {
		returning_ns = now_ns;
		sets_apply(true, true);
		if (!keep()) { /* changed in between: the next change would meet somebody else's action */
			sets_apply(false, false);
			returning_ns = 0;
		}
	} else if (now_ns - returning_ns > RETURN_NS) {
		returning_ns = 0;
		silent_until_ns = now_ns;
		atomic_store(&silent, false);
		sets_apply(true, false);
	}
}

int trap_hold(void)
{
	if (chain.place < 0)
		return chain_install(&chain);
	bool kept = keep(), settled = chain_settled(&chain);
	if (!kept || !settled)
		returning_ns = 0;
	if (atomic_load(&silent) && settled && time_monotonic_ns() - lost_ns > RETURN_NS)
		end_silence();
	return 0;
}

bool trap_is_silent(void)
{
	return atomic_load(&silent);
}

uint64_t trap_silent_until_ns(void)
{
	return atomic_load(&silent) ? UINT64_MAX : silent_until_ns;
}

uint64_t trap_handler(int place)
{
	return (uintptr_t)chain.handlers[place];
}

uint64_t trap_n_lost(void)
{
	return atomic_load(&chain.n_lost);
}

/* --- events on threads --- */

struct perf_event_attr trap_attributes(uint32_t type, uint64_t config, uint64_t data)
{
	return (struct perf_event_attr){
		.type = type,
		.size = sizeof(struct perf_event_attr),
		.config = config,
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_ADDR | PERF_SAMPLE_IP,
		.disabled = 1,
		.exclude_kernel = 1,
		.exclude_hv = 1,
		.sigtrap = 1,
		.remove_on_exec = 1,
		.inherit = 1,
		.inherit_thread = 1,
		.sig_data = data,
	};
}

struct attaching {
	struct trap_events *events;
	struct perf_event_attr attributes;
	int (*prepare)(int fd);
};

static int event_open(pid_t thread, const struct attaching *attaching)
{
	int fd = (int)syscall(SYS_perf_event_open, &attaching->attributes, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int event_keep(struct trap_events *events, const struct descriptor *event)
{
	uint32_t n = atomic_load(&events->n);
	struct descriptor *list = atomic_load(&events->list);
	if (n == events->capacity) {
		uint32_t capacity = n ? n * 2 : 16;
		struct descriptor *grown = mem_alloc(capacity * sizeof *grown);
		if (!grown)
			return -ENOMEM;
		if (n)
			memcpy(grown, list, n * sizeof *grown);
		/* Pairs with the load in events_apply. */
		atomic_store(&events->list, list = grown);
		events->capacity = capacity;
	}
	list[n] = *event;
	/* Pairs with the acquire in events_apply. */
	atomic_store_explicit(&events->n, n + 1, memory_order_release);
	return 0;
}

static int attach(pid_t thread, void *arg)
{
	const struct attaching *attaching = arg;
	struct trap_events *events = attaching->events;
	struct descriptor event;
	int error = descriptor_adopt(event_open(thread, attaching), DESCRIPTOR_PERF, &event);
	if (error == -ESRCH)
		return 0; /* it ended */
	if (error == -EMFILE && atomic_load(&events->n)) {
		events->n_refused++;
		return 0;
	}
	if (error)
		return error;
	error = attaching->prepare ? attaching->prepare(event.fd) : 0;
	if (!error)
		error = event_keep(events, &event);
	if (error)
		descriptor_close(&event);
	return error;
}

int trap_attach(struct trap_events *events, const struct perf_event_attr *attributes, int (*prepare)(int fd))
{
	struct attaching attaching = { events, *attributes, prepare };
	int error = syscall_refused(SYSCALL_PERF_EVENT_OPEN);
	if (!error)
		error = syscall_refused(SYSCALL_PERF_IOCTL);
	if (error)
		return error;
	events->n_refused = 0;
	events->any_lost = false;
	set_add(events);
	error = system_each_thread(attach, &attaching);
	if (error)
		trap_detach(events);
	return error;
}

void trap_detach(struct trap_events *events)
{
	struct descriptor *list = atomic_load(&events->list);
	uint32_t n = atomic_exchange(&events->n, 0);
	for (uint32_t i = 0; i < n; i++)
		descriptor_close(&list[i]);
}

bool trap_events_lost(struct trap_events *events)
{
	const struct descriptor *list = atomic_load(&events->list);
	uint32_t n = atomic_load(&events->n);
	if (!events->any_lost && n)
		events->any_lost = !descriptor_is_ours(&list[events->looked_at++ % n]);
	return events->any_lost || !n;
}

void trap_switch(struct trap_events *events, bool on)
{
	atomic_store(&events->on, on);
	events_apply(events, on && !atomic_load(&silent));
}

uint64_t trap_count(struct trap_events *events)
{
	const struct descriptor *list = atomic_load(&events->list);
	uint64_t total = 0, count;
	for (uint32_t i = 0; i < atomic_load(&events->n); i++) {
		bool ours = descriptor_is_ours(&list[i]);
		events->any_lost |= !ours;
		if (ours && read(list[i].fd, &count, sizeof count) == sizeof count)
			total += count;
	}
	return total;
}

/* --- what the system says --- */

bool trap_traced(uint64_t now_ns)
{
	static uint64_t next_look_ns;
	static bool traced;
	if (now_ns >= next_look_ns) {
		traced = system_traced();
		next_look_ns = now_ns + LOOK_NS;
	}
	return traced;
}

void trap_refusal(int error, char *ret_sentence, size_t size_bytes)
{
	int paranoid = system_sysctl("/proc/sys/kernel/perf_event_paranoid");
	bool filtered = status_number("/proc/thread-self/status", "Seccomp:") > 0;
	if (error == -EMFILE)
		snprintf(ret_sentence, size_bytes,
			 "too few file descriptors: one a thread is needed; raise the limit (ulimit -n)");
	else if (filtered && error != -EACCES)
		snprintf(ret_sentence, size_bytes,
			 "the container's seccomp profile forbids perf_event_open(2): "
			 "`docker run --cap-add PERFMON`, or "
			 "`--security-opt seccomp=memwatch.json`");
	else if (paranoid > 2 && error == -EACCES)
		snprintf(ret_sentence, size_bytes, "`sysctl kernel.perf_event_paranoid=2` (it is %d)", paranoid);
	else
		snprintf(ret_sentence, size_bytes, "perf_event_open(2): %s", strerror(-error));
}
