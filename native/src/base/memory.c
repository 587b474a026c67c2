/*
 * memory.c -- DESIGN: the kernel reads for us, and where there is nothing it says so. Two ways, without state, on any
 * thread:
 *
 * process_vm_writev(2) from the memory to our own buffer. Its source is read as any system call's, so it sees what the
 * process itself would see; the pages that it has to look up are the buffer's, which are few and ours.
 * process_vm_readv(2) would look up each page of the source: that is slower, and refuses memory that the process can
 * read (devices, memfd_secret).
 *
 * write(2) into a pipe, where the first is refused by a sandbox or an old kernel. The pipe lives for one call: no
 * descriptor stays that somebody could close.
 *
 * Raw system calls: libc's are cancellation points, and the sanitizers take them for reads of ours.
 *
 * Whether memory is shared is asked of the kernel's list of mappings.
 *
 * Loss: none. A refusal is not taken for missing memory.
 */
#define _GNU_SOURCE
#include "memory.h"

#include "maps.h"
#include "syscalls.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static ssize_t read_by_copy(void *to, const struct iovec *pieces, size_t n_pieces, size_t size_bytes)
{
	struct iovec buffer = { to, size_bytes };
	return syscall(SYS_process_vm_writev, getpid(), pieces, n_pieces, &buffer, 1, 0);
}

/* As much as a pipe takes. */
static ssize_t read_by_pipe(void *to, const struct iovec *pieces, size_t n_pieces)
{
	int fds[2];
	if (syscall(SYS_pipe2, fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	ssize_t n = syscall(SYS_writev, fds[1], pieces, n_pieces);
	if (n > 0)
		n = syscall(SYS_read, fds[0], to, n);
	int error = errno;
	syscall(SYS_close, fds[0]);
	syscall(SYS_close, fds[1]);
	errno = error;
	return n;
}

static ssize_t read_some(void *to, const struct iovec *pieces, size_t n_pieces, size_t size_bytes)
{
	bool refused = syscall_refused(SYSCALL_PROCESS_VM_WRITEV);
	ssize_t n = refused ? -1 : read_by_copy(to, pieces, n_pieces, size_bytes);
	if (refused || (n < 0 && errno != EFAULT))
		n = read_by_pipe(to, pieces, n_pieces);
	return n < 0 ? -errno : n;
}

static size_t bytes_of(const struct iovec *pieces, size_t n_pieces)
{
	size_t n = 0;
	for (size_t i = 0; i < n_pieces; i++)
		n += pieces[i].iov_len;
	return n;
}

/* Takes `n` bytes off the front. */
static void consume(struct iovec **pieces, size_t *n_pieces, size_t n)
{
	for (; *n_pieces && n >= (*pieces)->iov_len; (*pieces)++, (*n_pieces)--)
		n -= (*pieces)->iov_len;
	if (n && *n_pieces) {
		(*pieces)->iov_base = (char *)(*pieces)->iov_base + n;
		(*pieces)->iov_len -= n;
	}
}

ssize_t memory_gather(void *to, struct iovec *pieces, size_t n_pieces)
{
	size_t size_bytes = bytes_of(pieces, n_pieces), done = 0;
	while (done < size_bytes) {
		ssize_t n = read_some((char *)to + done, pieces, n_pieces, size_bytes - done);
		if (n == 0 || n == -EFAULT)
			break;
		if (n < 0)
			return n;
		consume(&pieces, &n_pieces, (size_t)n);
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int memory_copy(void *to, uint64_t from, size_t size_bytes)
{
	struct iovec piece = { (void *)(uintptr_t)from, size_bytes };
	ssize_t n = memory_gather(to, &piece, 1);
	if (n < 0)
		return (int)n;
	return (size_t)n == size_bytes ? 0 : -EFAULT;
}

size_t memory_peek(void *to, uint64_t from, size_t size_bytes)
{
	struct iovec piece = { (void *)(uintptr_t)from, size_bytes };
	ssize_t n = syscall_refused(SYSCALL_PROCESS_VM_WRITEV) ? 0 : read_by_copy(to, &piece, 1, size_bytes);
	return n > 0 ? (size_t)n : 0;
}

bool memory_has_left(uint64_t start, uint64_t size_bytes)
{
	uint64_t from = page_floor(start), end = start + size_bytes;
	uint8_t last;
	/* MS_ASYNC does nothing but look for holes. */
	if (!syscall_refused(SYSCALL_MSYNC) && msync((void *)(uintptr_t)from, page_ceil(end) - from, MS_ASYNC) < 0 &&
	    errno == ENOMEM)
		return true;
	return memory_copy(&last, end - 1, 1) == -EFAULT;
}

/* --- mappings --- */

/* struct procmap_query of Linux 6.11: what the kernel's headers of older systems do not have. */
struct mapping_query {
	uint64_t size, flags, address;
	uint64_t start, end, found_flags, page_bytes, offset, inode;
	uint32_t device_major, device_minor, name_bytes, build_id_bytes;
	uint64_t name, build_id;
};

#define MAPPING_QUERY _IOWR(0x94, 17, struct mapping_query)
enum { MAPPING_SHARED = 0x8, MAPPING_OR_NEXT = 0x10 };

static bool take_shared(const struct mapping *mapping, const char *path, void *arg)
{
	bool *any = arg;
	(void)path;
	*any = mapping->shared;
	return !*any;
}

static bool listed_as_shared(uint64_t start, uint64_t end)
{
	bool any = false;
	maps_each(start, end, take_shared, &any);
	return any;
}

bool memory_is_shared(uint64_t start, uint64_t size_bytes)
{
	struct mapping_query query = { .size = sizeof query,
				       .flags = MAPPING_SHARED | MAPPING_OR_NEXT,
				       .address = page_floor(start) };
	int fd = open("/proc/thread-self/maps", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	int error = ioctl(fd, MAPPING_QUERY, &query) < 0 ? errno : 0;
	close(fd);
	if (error && error != ENOENT) /* an older kernel */
		return listed_as_shared(start, start + size_bytes);
	return !error && query.start < start + size_bytes;
}
