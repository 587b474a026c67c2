/*
 * uffd.c -- DESIGN: the kernel itself resolves the write fault (userfaultfd WP_ASYNC) and remembers that the page was
 * written; PAGEMAP_SCAN reads and re-arms in one step. Nothing is protected against the process, no signal is sent,
 * system calls write as ever. Whole mappings are registered, since registering pages would split them; pages are armed
 * one by one. Everything runs under the engine's lock on the worker's or a caller's thread.
 *
 * Loss: none. A mapping that was moved or replaced loses its registration, which PAGEMAP_SCAN reports (EPERM): its
 * pages then count as written and are armed again.
 */
#define _GNU_SOURCE
#include "fault.h"
#include "sigtrap.h"
#include "system.h"
#include "uffd_open.h"

#include "../base/maps.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SCAN_RANGES = 512, MAPPINGS = 64 };
#define HUGE_BYTES (UINT64_C(2) << 20)

static struct page_set pages;
static struct descriptor uffd = DESCRIPTOR_NONE, pagemap = DESCRIPTOR_NONE;

static int protect(struct span span, bool on)
{
	struct uffdio_writeprotect arg = { .range = { span.start, span.end - span.start },
					   .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0 };
	for (int tries = 0; tries < 1000; tries++) {
		if (ioctl(uffd.fd, UFFDIO_WRITEPROTECT, &arg) == 0)
			return 0;
		if (errno != EAGAIN) /* while mappings change */
			return -errno;
	}
	return -EAGAIN;
}

static void rearm(uint64_t page)
{
	int error = errno;
	protect((struct span){ page, page + PAGE_BYTES }, true);
	errno = error;
}

/* Registers the whole mappings that hold the span. */
static int register_mappings(struct span span)
{
	struct mapping mappings[MAPPINGS];
	if (!descriptor_is_ours(&uffd)) /* not with another's: nobody would resolve its faults */
		return -EBADF;
	while (span.start < span.end) {
		size_t found = maps_list(span.start, span.end, mappings, MAPPINGS);
		size_t n = found < MAPPINGS ? found : MAPPINGS;
		if (!n || mappings[0].start > span.start)
			return -ENOENT;
		for (size_t i = 0; i < n; i++) {
			struct uffdio_register arg = { .range = { mappings[i].start,
								  mappings[i].end - mappings[i].start },
						       .mode = UFFDIO_REGISTER_MODE_WP };
			if (ioctl(uffd.fd, UFFDIO_REGISTER, &arg) < 0)
				return -errno;
			span.start = mappings[i].end;
		}
	}
	return 0;
}

static int protect_registered(struct span span)
{
	int error = protect(span, true);
	if (error == -ENOENT) {
		error = register_mappings(span);
		if (!error)
			error = protect(span, true);
	}
	return error;
}

static int arm(struct span span)
{
	int error = protect_registered(span);
	if (error == -EINVAL) { /* huge pages: whole ones only */
		span.start = span.start & ~(HUGE_BYTES - 1);
		span.end = (span.end + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1);
		error = protect_registered(span);
	}
	return error ? error : page_set_add(&pages, span);
}

static void disarm(struct span span)
{
	protect(span, false);
	page_set_remove(&pages, span);
}

/* A mapping under the span was moved or replaced: arm what is there now, count all of it as written. */
static int collect_replaced(struct span span, struct span_list *written)
{
	protect_registered(span);
	return span_list_add(written, span.start, span.end);
}

/* `flags`: of the scan. -ENOMEM without room; another error when it was refused from *ret_left on. */
static int scan_written(struct span span, uint64_t flags, struct span_list *written, uint64_t *ret_left)
{
	static struct scanned found[SCAN_RANGES]; /* under the engine's lock */
	struct scan scan = { .size = sizeof scan,
			     .flags = flags,
			     .start = span.start,
			     .end = span.end,
			     .vec = (uintptr_t)found,
			     .vec_len = SCAN_RANGES,
			     .category_mask = SCAN_WRITTEN,
			     .return_mask = SCAN_WRITTEN };
	while (scan.start < scan.end) {
		/* Room first: what a scan has re-armed must be kept. */
		if (!span_list_reserve(written, SCAN_RANGES))
			return -ENOMEM;
		long n = ioctl(pagemap.fd, SCAN_IOCTL, &scan);
		if (n < 0) {
			*ret_left = scan.start;
			return -EIO;
		}
		for (long i = 0; i < n; i++)
			span_list_add(written, found[i].start, found[i].end);
		if (scan.walk_end <= scan.start)
			break;
		scan.start = scan.walk_end;
	}
	return 0;
}

static int collect(struct span span, struct span_list *written)
{
	uint64_t left = span.start;
	int error = scan_written(span, SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC, written, &left);
	return error == -EIO ? collect_replaced((struct span){ left, span.end }, written) : error;
}

static void peek(struct span span, struct span_list *written)
{
	uint64_t left;
	scan_written(span, 0, written, &left);
}

static void shut(void)
{
	descriptor_close(&uffd);
	descriptor_close(&pagemap);
}

/* A user's store and a read(2) must both be seen, and the read must succeed. */
static int self_test(char *scratch, char *note, size_t note_size)
{
	struct span span = span_of((uintptr_t)scratch, PAGE_BYTES);
	struct span_list written = { 0 };
	int fds[2], failed = 0;
	if (arm(span) || collect(span, &written) || written.n)
		failed = snprintf(note, note_size, "a fresh page cannot be armed: %s", strerror(errno));
	*(volatile char *)scratch = 1;
	if (!failed && (collect(span, &written) || written.n != 1))
		failed = snprintf(note, note_size, "a store was not seen in the self-test");
	written.n = 0;
	if (!failed && pipe2(fds, O_CLOEXEC) < 0)
		failed = snprintf(note, note_size, "no pipe for the self-test: %s", strerror(errno));
	else if (!failed) {
		if (write(fds[1], "x", 1) != 1 || read(fds[0], scratch, 1) != 1 || collect(span, &written) ||
		    written.n != 1)
			failed =
				snprintf(note, note_size, "a read(2) into an armed page was not seen in the self-test");
		close(fds[0]);
		close(fds[1]);
	}
	span_list_fini(&written);
	disarm(span);
	return failed ? -ENOTSUP : 0;
}

static int open_uffd(struct ring *ring, char *note, size_t note_size)
{
	(void)ring;
	int error = uffd_open_descriptors(&uffd, &pagemap, note, note_size);
	char *scratch = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (scratch == MAP_FAILED)
		error = error ? error : -ENOMEM;
	else if (!error)
		error = self_test(scratch, note, note_size);
	if (scratch != MAP_FAILED)
		munmap(scratch, PAGE_BYTES);
	if (error)
		shut();
	return error;
}

/*
 * Once a second: has the host closed our descriptors, as old daemons do with all that they do not know? Then no page is
 * armed any more, and until now all counted as written; with new ones the next collect arms them again.
 */
static uint64_t tick(uint64_t now_ns)
{
	static uint64_t next_look_ns; /* under the engine's lock */
	char note[200];
	if (now_ns < next_look_ns)
		return 0;
	next_look_ns = now_ns + NS_PER_S;
	if (!descriptor_is_ours(&uffd) || !descriptor_is_ours(&pagemap)) {
		shut();
		uffd_open_descriptors(&uffd, &pagemap, note, sizeof note);
	}
	return 0;
}

const struct backend fault_uffd = {
	.name = "uffd",
	.pages = &pages,
	.source = &fault_sigtrap,
	.open = open_uffd,
	.close = shut,
	.arm = arm,
	.disarm = disarm,
	.rearm = rearm,
	.collect = collect,
	.peek = peek,
	.tick = tick,
	.fork_child = shut,
};
