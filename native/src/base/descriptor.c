/*
 * descriptor.c -- DESIGN: a descriptor is opened as ever, with the lowest free number, and moved up at once. The floor
 * is FD_SETSIZE, or half of the limit where that is less; the eighth below the limit is left to the host, whose next
 * open must not fail for our sake. Any thread; owns nothing.
 *
 * Loss: what the host has closed is no longer ours, whatever has its number now.
 */
#define _GNU_SOURCE
#include "descriptor.h"

#include "base.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RESERVE = 8 }; /* one in so many numbers is never ours */

/* The kernel's number of a map or program; 0: it is none. Both structures begin with their type and this number. */
__attribute__((noinline)) static uint64_t bpf_number(int fd, bool program)
{
	union {
		struct bpf_map_info map;
		struct bpf_prog_info program;
	} info;
	union bpf_attr attr;
	memset(&info, 0, sizeof info);
	memset(&attr, 0, sizeof attr);
	attr.info.bpf_fd = (uint32_t)fd;
	attr.info.info_len = program ? sizeof info.program : sizeof info.map;
	attr.info.info = (uintptr_t)&info;
	if (syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof attr) < 0)
		return 0;
	return program ? info.program.id : info.map.id;
}

static uint64_t number_of(int fd, enum descriptor_kind kind)
{
	uint64_t number = 0;
	switch (kind) {
	case DESCRIPTOR_PERF: return ioctl(fd, PERF_EVENT_IOC_ID, &number) < 0 ? 0 : number;
	case DESCRIPTOR_BPF_MAP: return bpf_number(fd, false);
	case DESCRIPTOR_BPF_PROGRAM: return bpf_number(fd, true);
	default: return 0;
	}
}

/* 0 or -errno. The inode comes first: to ask a stranger for its number could be an order that it understands. */
static int identify(int fd, enum descriptor_kind kind, const struct descriptor *like, struct descriptor *ret_descriptor)
{
	struct stat file;
	if (fstat(fd, &file) < 0)
		return -errno;
	if (like && (like->device != file.st_dev || like->inode != file.st_ino))
		return -ESTALE;
	*ret_descriptor = (struct descriptor){ fd, kind, file.st_dev, file.st_ino, number_of(fd, kind) };
	return 0;
}

/* The numbers [first, end) may be ours. */
static void room(int *ret_first, int *ret_end)
{
	struct rlimit limit;
	rlim_t n = getrlimit(RLIMIT_NOFILE, &limit) < 0 ? FD_SETSIZE : limit.rlim_cur;
	n = n < INT32_MAX ? n : INT32_MAX;
	*ret_first = (int)(n > 2 * FD_SETSIZE ? FD_SETSIZE : n / 2);
	*ret_end = (int)(n - n / RESERVE);
}

int descriptor_adopt(int fd, enum descriptor_kind kind, struct descriptor *ret_descriptor)
{
	int first, end;
	if (fd < 0)
		return fd;
	room(&first, &end);
	int high = fcntl(fd, F_DUPFD_CLOEXEC, first);
	int error = high < 0      ? (errno == EINVAL ? -EMFILE : -errno)
		    : high >= end ? -EMFILE
				  : identify(high, kind, NULL, ret_descriptor);
	close(fd);
	if (error && high >= 0)
		close(high);
	return error;
}

bool descriptor_is_ours(const struct descriptor *descriptor)
{
	struct descriptor now = { 0 };
	int error = errno;
	bool ours = descriptor->fd >= 0 && identify(descriptor->fd, descriptor->kind, descriptor, &now) == 0 &&
		    now.number == descriptor->number;
	errno = error;
	return ours;
}

void descriptor_close(struct descriptor *descriptor)
{
	if (descriptor_is_ours(descriptor))
		close(descriptor->fd);
	*descriptor = DESCRIPTOR_NONE;
}
