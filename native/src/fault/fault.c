/*
 * fault.c -- DESIGN: what every way of catching a fault needs. fault_note runs on the writer's thread in signal context and is
 * the heart of the handlers: time, thread, frame, ring. It allocates nothing and takes no lock. The rest runs when a
 * backend opens.
 */
#define _GNU_SOURCE
#include "fault.h"

#include "../base/location.h"
#include "../base/syscalls.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

void fault_ring_set(struct ring *ring)
{
	atomic_store(&listening, ring);
	while (!ring && atomic_load(&own.n_inside))
		sched_yield();
}

void fault_fork_child(void)
{
	atomic_store(&listening, NULL);
	atomic_store(&own.n_inside, 0);
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

void fault_writer(void *context, uint64_t *ret_ip, int32_t *ret_thread_id, uint32_t *ret_location)
{
	if (!own_thread_id)
		own_thread_id = (int32_t)syscall(SYS_gettid);
	uint32_t (*hook)(void *, unsigned) = atomic_load_explicit(&frame_hook, memory_order_acquire);
	*ret_ip = context ? instruction_pointer(context) : 0;
	*ret_thread_id = own_thread_id;
	*ret_location = hook && context ? hook(context, atomic_load_explicit(&frame_depth, memory_order_relaxed)) : 0;
}

void fault_note(struct ring *ring, uint64_t address, void *context)
{
	uint64_t now_ns = time_realtime_ns(), ip;
	int32_t thread_id;
	uint32_t location;
	fault_writer(context, &ip, &thread_id, &location);
	ring_push(ring, now_ns, address, ip, thread_id, location);
}

void fault_rehearse(struct ring *ring)
{
	memwatch_location_intern("", 0, "", 0, 0, 0);
	fault_note(ring, 0, NULL);
}

/* --- signals --- */

/* Where this thread's stack stood when it last passed a signal on; by signal, since two chains may nest. */
static _Thread_local uintptr_t passing[2] __attribute__((tls_model("initial-exec")));

int fault_chain_install(struct fault_chain *chain)
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

void fault_chain_keep(struct fault_chain *chain)
{
	struct sigaction now;
	if (sigaction(chain->signal, NULL, &now) < 0 ||
	    ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == chain->handler))
		return;
	atomic_fetch_add(&chain->n_lost, 1);
	fault_chain_install(chain);
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

void fault_chain_pass(struct fault_chain *chain, int signal, siginfo_t *info, void *context)
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

/* --- what the system allows --- */

bool fault_traced(void)
{
	return status_number("/proc/self/status", "TracerPid:") > 0;
}

/* One round over the threads: attaches to those that are not in `known` yet. */
static int attach_new(int (*attach)(pid_t thread, void *arg), void *arg, struct span_list *known, bool *ret_found)
{
	struct dirent *entry;
	int error = 0;
	DIR *tasks = opendir("/proc/self/task");
	if (!tasks)
		return -errno;
	while (!error && (entry = readdir(tasks))) {
		uint64_t thread = (uint64_t)atoi(entry->d_name);
		size_t i = 0;
		while (i < known->n && !(thread >= known->spans[i].start && thread < known->spans[i].end))
			i++;
		if (!thread || i < known->n)
			continue;
		error = attach((pid_t)thread, arg);
		if (!error)
			error = span_list_add(known, thread, thread + 1);
		*ret_found = true;
	}
	closedir(tasks);
	return error;
}

int fault_each_thread(int (*attach)(pid_t thread, void *arg), void *arg)
{
	struct span_list known = { 0 };
	int error = 0;
	for (bool found = true; found && !error;) {
		found = false;
		error = attach_new(attach, arg, &known, &found);
	}
	span_list_fini(&known);
	return error;
}

int fault_sysctl(const char *path)
{
	char text[32];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return -1;
	text[n] = 0;
	return atoi(text);
}

/* One line of /proc/self/maps; false when it is none. */
static bool mapping_parse(const char *line, struct mapping *ret_mapping)
{
	unsigned long long start, end, offset, inode;
	unsigned major, minor;
	char mode[5];
	if (sscanf(line, "%llx-%llx %4s %llx %x:%x %llu", &start, &end, mode, &offset, &major, &minor, &inode) != 7)
		return false;
	*ret_mapping = (struct mapping){ start, end, mode[0] == 'r', mode[1] == 'w', mode[2] == 'x', inode != 0 };
	return true;
}

size_t fault_mappings(uint64_t start, uint64_t end, struct mapping *mappings, size_t n)
{
	char line[512];
	size_t found = 0;
	FILE *maps = fopen("/proc/self/maps", "re");
	while (maps && fgets(line, sizeof line, maps)) {
		struct mapping mapping;
		if (!strchr(line, '\n')) /* the rest of a long path */
			for (int c = 0; c != '\n' && c != EOF; c = fgetc(maps))
				;
		if (!mapping_parse(line, &mapping) || mapping.end <= start)
			continue;
		if (mapping.start >= end)
			break;
		if (found < n)
			mappings[found] = mapping;
		found++;
	}
	if (maps)
		fclose(maps);
	return found;
}
