/*
 * syscalls.h -- which of the system calls that not every program makes may this process make? A seccomp filter may kill
 * for one that it does not know; none of ours may be the host's last.
 */
#ifndef SYSCALLS_H
#define SYSCALLS_H

enum syscall_id {
	SYSCALL_USERFAULTFD,
	SYSCALL_USERFAULTFD_DEVICE, /* the ioctl of /dev/userfaultfd */
	SYSCALL_PAGEMAP_SCAN,       /* the ioctl of /proc/PID/pagemap */
	SYSCALL_PERF_EVENT_OPEN,
	SYSCALL_PERF_IOCTL, /* the ioctls of its descriptors */
	SYSCALL_BPF,
	SYSCALL_PROCESS_VM_WRITEV,
	SYSCALL_MSYNC,
	SYSCALL_SCHED_SETSCHEDULER,
	SYSCALLS
};

/*
 * Asks the filter, if there is one, in a throw-away child. Blocks for about a millisecond then. Called by one thread at
 * a time, before the engine makes any of these calls; a filter that comes later is not known.
 */
void syscalls_probe(void);

/*
 * Why the system call must not be made: -EPERM when the filter kills for it, -EAGAIN when that could not be tried, or
 * what the call itself answered (-EPERM, -ENOSYS). 0: the filter lets it through. Signal-safe.
 */
int syscall_refused(enum syscall_id id);

/*
 * The number behind a key at the start of a line, such as "Seccomp:", of a file like /proc/self/status; -1: not known.
 */
int status_number(const char *path, const char *key);

#endif
