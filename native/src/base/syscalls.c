/*
 * syscalls.c -- DESIGN: a filter that kills leaves no error to read, so each call is made first by a child, with
 * arguments that change nothing. The child writes "refused" before a call and what it answered after it, into a page
 * that it shares with us; when it dies, the next child goes on behind the call that killed it.
 *
 * Before Linux 5.16 a child that dies with a core dump takes everybody along who shares its memory, so it gets a copy
 * there, at the cost of a fork: some 0.1 ms for each MiB of the host in small pages. Later kernels end the child alone:
 * it shares the memory, which costs nothing, and asks for no core file of it.
 *
 * The child blocks all signals, so that a call that the filter answers by SIGSYS ends it before a handler of the host's
 * runs. It sends no SIGCHLD and runs no atfork handlers: the host does not learn of it.
 *
 * A filter that kills for clone(2) itself cannot be asked.
 */
#define _GNU_SOURCE
#include "syscalls.h"

#include "base.h"

#include <fcntl.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

/* Newer than Debian 12's headers; the values are the kernel's. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#define PAGEMAP_SCAN_IOCTL _IOC(_IOC_READ | _IOC_WRITE, 'f', 16, 96)

enum { UNTRIED = 1 }; /* no -errno */

/* Written by syscalls_probe, read by all. */
static _Atomic int refusals[SYSCALLS];

/* Each call with arguments that change nothing where it is allowed. In the child. */
static long call(enum syscall_id id)
{
	static char from = 1, to;
	struct iovec local = { &from, 1 }, remote = { &to, 1 };
	struct sched_param param = { 0 };
	switch (id) {
	case SYSCALL_USERFAULTFD: return syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	case SYSCALL_USERFAULTFD_DEVICE: return syscall(SYS_ioctl, -1, USERFAULTFD_IOC_NEW, 0);
	case SYSCALL_PAGEMAP_SCAN: return syscall(SYS_ioctl, -1, PAGEMAP_SCAN_IOCTL, NULL);
	case SYSCALL_PERF_EVENT_OPEN: return syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0);
	case SYSCALL_PERF_IOCTL: return syscall(SYS_ioctl, -1, PERF_EVENT_IOC_ID, NULL);
	case SYSCALL_BPF: return syscall(SYS_bpf, -1, NULL, 0);
	case SYSCALL_PROCESS_VM_WRITEV: return syscall(SYS_process_vm_writev, (long)getpid(), &local, 1, &remote, 1, 0);
	case SYSCALL_MSYNC: return syscall(SYS_msync, NULL, 0, MS_ASYNC);
	case SYSCALL_SCHED_SETSCHEDULER: return syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &param);
	default: return 0;
	}
}

/* What parent and child share; of the child's, but for what stands there before it begins. */
struct trial {
	volatile int answers[SYSCALLS];
	volatile int quiet; /* UNTRIED until a child has asked for no core file */
	bool shares_memory;
	struct rlimit core;
};

/* No core file of the child's, if the filter lets us say so: 1 byte is the kernel's word for "nor to a program". */
static void ask_for_no_core(struct trial *trial)
{
	if (trial->quiet != UNTRIED)
		return;
	trial->quiet = -EPERM;
	if (trial->shares_memory)
		setrlimit(RLIMIT_CORE, &trial->core);
	else
		prctl(PR_SET_DUMPABLE, 0);
	trial->quiet = 0;
}

/* The child. */
static int try_all(void *arg)
{
	struct trial *trial = arg;
	ask_for_no_core(trial);
	for (int i = 0; i < SYSCALLS; i++) {
		if (trial->answers[i] != UNTRIED)
			continue;
		trial->answers[i] = -EPERM;
		trial->answers[i] = call((enum syscall_id)i) < 0 ? -errno : 0;
	}
	_exit(0);
}

/* Does a program take core dumps? It gets them whatever the limit is, unless that is 1. */
static bool core_goes_to_program(void)
{
	char first = '|';
	int fd = open("/proc/sys/kernel/core_pattern", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, &first, 1) != 1)
		first = 0;
	if (fd >= 0)
		close(fd);
	return first == '|';
}

/* ThreadSanitizer's account of the calling thread lies in the memory that a child would share, and write to. */
#if defined(__SANITIZE_THREAD__)
#define MAY_SHARE_MEMORY false
#else
#define MAY_SHARE_MEMORY true
#endif

/* Does a child that dies with a core dump leave those alive who share its memory, and can the dump be declined? */
static bool sharing_is_safe(struct rlimit *ret_core)
{
	struct utsname kernel;
	int major = 0, minor = 0;
	if (uname(&kernel) < 0 || sscanf(kernel.release, "%d.%d", &major, &minor) != 2 ||
	    getrlimit(RLIMIT_CORE, ret_core) < 0 || (ret_core->rlim_max == 0 && core_goes_to_program()))
		return false;
	ret_core->rlim_cur = ret_core->rlim_max ? 1 : 0;
	return MAY_SHARE_MEMORY && (major > 5 || (major == 5 && minor >= 16));
}

/* One child; it has ended when this returns. False when there could be none. */
static bool run_child(struct trial *trial)
{
	static char stack[16 << 10] __attribute__((aligned(16))); /* one caller at a time */
	sigset_t all, before;
	int error = errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* No signal at its end: waited for by __WALL only. */
	pid_t child = clone(try_all, stack + sizeof stack, CLONE_VFORK | (trial->shares_memory ? CLONE_VM : 0), trial);
	while (child > 0 && waitpid(child, NULL, __WALL) < 0 && errno == EINTR)
		;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = error;
	return child > 0;
}

static bool any_untried(const struct trial *trial)
{
	for (int i = 0; i < SYSCALLS; i++)
		if (trial->answers[i] == UNTRIED)
			return true;
	return false;
}

static void ask_filter(int *answers)
{
	struct trial *trial = mmap(NULL, sizeof *trial, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < SYSCALLS; i++)
		answers[i] = -EAGAIN;
	if (trial == MAP_FAILED)
		return;
	for (int i = 0; i < SYSCALLS; i++)
		trial->answers[i] = UNTRIED;
	trial->quiet = UNTRIED;
	trial->shares_memory = sharing_is_safe(&trial->core);
	/* Each child takes at least one answer with it, or its wish for no core file. */
	for (int i = 0; i <= SYSCALLS && any_untried(trial) && run_child(trial); i++)
		;
	for (int i = 0; i < SYSCALLS; i++)
		if (trial->answers[i] != UNTRIED)
			answers[i] = trial->answers[i];
	munmap(trial, sizeof *trial);
}

void syscalls_probe(void)
{
	int answers[SYSCALLS] = { 0 };
	/* Each thread has filters of its own; ours inherit the caller's. */
	if (status_number("/proc/thread-self/status", "Seccomp:") != 0)
		ask_filter(answers);
	for (int i = 0; i < SYSCALLS; i++) {
		bool refused = answers[i] == -EPERM || answers[i] == -ENOSYS || answers[i] == -EAGAIN;
		atomic_store_explicit(&refusals[i], refused ? answers[i] : 0, memory_order_relaxed);
	}
}

int syscall_refused(enum syscall_id id)
{
	return atomic_load_explicit(&refusals[id], memory_order_relaxed);
}

int status_number(const char *path, const char *key)
{
	char text[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = 0;
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, strlen(key)) == 0)
			return atoi(line + strlen(key));
	}
	return -1;
}
