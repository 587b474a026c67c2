/*
 * filters.h -- puts the test's process under a seccomp filter, as containers and service managers do.
 */
#ifndef FILTERS_H
#define FILTERS_H

#include "harness.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* `answer` (SECCOMP_RET_...) for each of the `n` system calls; all others go on. `flags`: SECCOMP_FILTER_FLAG_... */
static inline void filter_calls(const int *numbers, unsigned n, uint32_t answer, unsigned flags)
{
	struct sock_filter code[64];
	unsigned short k = 0;
	code[k++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < n; i++) {
		code[k++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)numbers[i], 0, 1);
		code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, answer);
	}
	code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { k, code };
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program) == 0);
}

/* What Docker's and Podman's default profiles deny, and all else that a stricter one may. */
static const int container_denies[] = { SYS_userfaultfd, SYS_perf_event_open, SYS_bpf };
static const int strict_denies[] = { SYS_userfaultfd,       SYS_perf_event_open, SYS_bpf,   SYS_process_vm_readv,
				     SYS_process_vm_writev, SYS_mincore,         SYS_msync, SYS_sched_setscheduler };

#define FILTER(numbers, answer) filter_calls(numbers, sizeof(numbers) / sizeof *(numbers), answer, 0)
/* On all threads. */
#define FILTER_ALL(numbers, answer)                                                                                    \
	filter_calls(numbers, sizeof(numbers) / sizeof *(numbers), answer, SECCOMP_FILTER_FLAG_TSYNC)

#endif
