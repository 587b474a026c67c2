/*
 * uffd_open.c -- DESIGN: two doors lead to a userfaultfd, the system call and /dev/userfaultfd; whichever opens is
 * taken, and when none does the sentence names the cure that helps here. On the threads of those who open a watcher,
 * and on the worker.
 */
#define _GNU_SOURCE
#include "uffd_open.h"

#include "../base/syscalls.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define NO_DESCRIPTOR "no file descriptor is left: raise the limit (ulimit -n)"

/* The kernel's version, for sentences. */
static const char *kernel_version(struct utsname *kernel)
{
	if (uname(kernel) < 0)
		return "?";
	kernel->release[strspn(kernel->release, "0123456789.")] = 0;
	return kernel->release;
}

static int refuse_kernel(char *note, size_t note_size)
{
	struct utsname kernel;
	snprintf(note, note_size, "this kernel (%s) cannot tell which pages were written. Linux 6.7 or later can",
		 kernel_version(&kernel));
	return -ENOTSUP;
}

/* Why neither userfaultfd(2) nor its device is to be had. */
static int refuse_uffd(int error, int device_error, char *note, size_t note_size)
{
	if (error == EMFILE || error == ENFILE || device_error == EMFILE)
		snprintf(note, note_size, NO_DESCRIPTOR);
	else if (error == EINVAL)
		return refuse_kernel(note, note_size);
	else if (device_error == EACCES)
		snprintf(
			note, note_size,
			"/dev/userfaultfd is there but not for uid %u: on the host `chmod 666 /dev/userfaultfd` (udev: "
			"`KERNEL==\"userfaultfd\", MODE=\"0666\"`)",
			geteuid());
	else if (status_number("/proc/thread-self/status", "Seccomp:") == 0)
		snprintf(note, note_size, "userfaultfd(2): %s", strerror(error));
	else
		snprintf(note, note_size,
			 "the container's seccomp profile forbids userfaultfd(2). Either `docker run --device "
			 "/dev/userfaultfd` (root in the container), or `--security-opt seccomp=memwatch.json`");
	return -ENOTSUP;
}

/* The device is the other door: a seccomp profile does not see it. Returns a descriptor or -errno. */
static int open_by_device(void)
{
	int refused = syscall_refused(SYSCALL_USERFAULTFD_DEVICE);
	int device = refused ? -1 : open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return refused ? refused : -errno;
	int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	int error = errno;
	close(device);
	return fd < 0 ? -error : fd;
}

static int open_uffd(struct descriptor *ret_uffd, char *note, size_t note_size)
{
	int error = syscall_refused(SYSCALL_USERFAULTFD), device_error = 0;
	int fd = error ? error : (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	error = descriptor_adopt(error ? error : fd < 0 ? -errno : fd, DESCRIPTOR_FILE, ret_uffd);
	if (error)
		device_error = descriptor_adopt(open_by_device(), DESCRIPTOR_FILE, ret_uffd);
	return error && device_error ? refuse_uffd(-error, -device_error, note, note_size) : 0;
}

static int open_pagemap(struct descriptor *ret_pagemap, char *note, size_t note_size)
{
	struct scan scan = { .size = sizeof scan };
	int fd = open("/proc/thread-self/pagemap", O_RDONLY | O_CLOEXEC);
	int error = descriptor_adopt(fd < 0 ? -errno : fd, DESCRIPTOR_FILE, ret_pagemap);
	if (error == -EACCES || error == -EPERM)
		snprintf(note, note_size,
			 "the process changed its user id: call `prctl(PR_SET_DUMPABLE, 1)` after setuid, or open the "
			 "watcher before");
	else if (error == -EMFILE || error == -ENFILE)
		snprintf(note, note_size, NO_DESCRIPTOR);
	else if (error)
		snprintf(note, note_size, "/proc/self/pagemap: %s", strerror(-error));
	else if (syscall_refused(SYSCALL_PAGEMAP_SCAN))
		snprintf(note, note_size, "a seccomp filter forbids ioctl(2) on /proc/self/pagemap");
	else if (ioctl(ret_pagemap->fd, SCAN_IOCTL, &scan) < 0 && errno == ENOTTY)
		return refuse_kernel(note, note_size);
	else
		return 0;
	return -ENOTSUP;
}

static bool page_size_known(char *note, size_t note_size)
{
	long bytes = sysconf(_SC_PAGESIZE);
	if (bytes != PAGE_BYTES)
		snprintf(note, note_size, "this kernel's pages have %ld bytes, and only pages of %d are known here",
			 bytes, PAGE_BYTES);
	return bytes == PAGE_BYTES;
}

int uffd_open_descriptors(struct descriptor *ret_uffd, struct descriptor *ret_pagemap, char *note, size_t note_size)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					      UFFD_FEATURE_WP_UNPOPULATED };
	if (!page_size_known(note, note_size))
		return -ENOTSUP;
	/* First the page map: a kernel that cannot scan it needs no advice about the rest. */
	int error = open_pagemap(ret_pagemap, note, note_size);
	if (!error)
		error = open_uffd(ret_uffd, note, note_size);
	if (!error && ioctl(ret_uffd->fd, UFFDIO_API, &api) < 0)
		error = refuse_kernel(note, note_size);
	return error;
}
