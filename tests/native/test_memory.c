/*
 * test_memory.c -- every kind of memory: a user's store and a system call's are both seen, and memory may vanish.
 */
#include "watching.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define HUGE_BYTES ((size_t)2 << 20)

static uint8_t in_data[100] = { 1 };
static uint8_t in_bss[3 * PAGE];

/* Watches, writes at both ends and in the middle, and compares each event. */
static void check_memory(memwatch *watcher, uint8_t *memory, size_t size_bytes)
{
	const size_t offsets[] = { 0, size_bytes / 2, size_bytes - 1 };
	uint64_t id = add_region(watcher, memory, size_bytes, NULL);
	for (int i = 0; i < 3; i++) {
		uint64_t since = newest(watcher);
		uint8_t old = memory[offsets[i]];
		poke(memory + offsets[i], (uint8_t)(old + 1));
		const struct memwatch_event *event = only_event(watcher, since);
		CHECK_EQ(event->region_id, id);
		CHECK_EQ(event->changed_bytes, 1);
		CHECK_EQ(event->changes[0].offset, offsets[i]);
		memwatch_event_unref(event);
	}
	OK(memwatch_region_remove(watcher, id));
}

static void check_mapping(memwatch *watcher, size_t size_bytes, int flags, int fd)
{
	uint8_t *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	CHECK(memory != MAP_FAILED);
	check_memory(watcher, memory, size_bytes); /* its pages are not there yet */
	memset(memory, 1, size_bytes);
	check_memory(watcher, memory, size_bytes);
	check_memory(watcher, memory + 100, size_bytes - 200);
	munmap(memory, size_bytes);
}

BACKEND_TEST(anonymous_memory)
{
	memwatch *watcher = open_backend(backend);
	check_mapping(watcher, 5 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	memwatch_close(watcher);
}

BACKEND_TEST(shared_anonymous_memory)
{
	memwatch *watcher = open_backend(backend);
	check_mapping(watcher, 5 * PAGE, MAP_SHARED | MAP_ANONYMOUS, -1);
	memwatch_close(watcher);
}

BACKEND_TEST(a_memfd)
{
	memwatch *watcher = open_backend(backend);
	int fd = memfd_create("memwatch-test", MFD_CLOEXEC);
	CHECK(fd >= 0 && ftruncate(fd, 5 * PAGE) == 0);
	check_mapping(watcher, 5 * PAGE, MAP_SHARED, fd);
	check_mapping(watcher, 5 * PAGE, MAP_PRIVATE, fd);
	memwatch_close(watcher);
}

BACKEND_TEST(a_file)
{
	char path[] = "/var/tmp/memwatch-file-XXXXXX";
	memwatch *watcher = open_backend(backend);
	int fd = mkstemp(path);
	CHECK(fd >= 0 && unlink(path) == 0 && ftruncate(fd, 5 * PAGE) == 0);
	check_mapping(watcher, 5 * PAGE, MAP_SHARED, fd);
	check_mapping(watcher, 5 * PAGE, MAP_PRIVATE, fd);
	memwatch_close(watcher);
}

BACKEND_TEST(transparent_huge_pages)
{
	memwatch *watcher = open_backend(backend);
	uint8_t *memory = mmap(NULL, 4 * HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	uint8_t *huge = (uint8_t *)(((uintptr_t)memory + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1));
	madvise(huge, 3 * HUGE_BYTES, MADV_HUGEPAGE);
	memset(huge, 1, 3 * HUGE_BYTES);
	check_memory(watcher, huge, 3 * HUGE_BYTES);
	check_memory(watcher, huge + 12345, HUGE_BYTES);
	memwatch_close(watcher);
}

static int change_reserve(int by)
{
	int n = -1;
	FILE *file = fopen("/proc/sys/vm/nr_hugepages", "r+e");
	if (!file)
		return -errno;
	if (fscanf(file, "%d", &n) == 1) {
		rewind(file);
		fprintf(file, "%d\n", n + by);
	}
	return fclose(file) < 0 || n < 0 ? -EIO : 0;
}

/* The machine's reserve; or one page more for as long as it takes to map it, which needs privilege. */
static uint8_t *map_huge_page(void)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB;
	uint8_t *memory = mmap(NULL, HUGE_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (memory == MAP_FAILED && change_reserve(1) == 0) {
		memory = mmap(NULL, HUGE_BYTES, PROT_READ | PROT_WRITE, flags | MAP_POPULATE, -1, 0);
		change_reserve(-1); /* what is in use becomes a surplus page, and goes when it is unmapped */
	}
	if (memory == MAP_FAILED)
		SKIP("no huge pages are reserved, and none can be");
	return memory;
}

BACKEND_TEST(huge_pages_of_the_system)
{
	memwatch *watcher = open_backend(backend);
	uint8_t *memory = map_huge_page();
	check_memory(watcher, memory, HUGE_BYTES);
	check_memory(watcher, memory + 5000, 100);
	memwatch_close(watcher);
}

BACKEND_TEST(data_bss_heap_and_stack)
{
	memwatch *watcher = open_backend(backend);
	uint8_t on_stack[64] = { 0 };
	uint8_t *small = malloc(24), *large = malloc(1 << 20);
	check_memory(watcher, in_data, sizeof in_data);
	check_memory(watcher, in_bss, sizeof in_bss);
	check_memory(watcher, small, 24);
	check_memory(watcher, large, 1 << 20);
	if (strcmp(backend, "mprotect") != 0) /* a protected stack is the host's death: "auto" polls it */
		check_memory(watcher, on_stack, sizeof on_stack);
	free(small);
	free(large);
	memwatch_close(watcher);
}

TEST(read_only_memory_does_not_change)
{
	static const char text[] = "constant";
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	uint64_t id = add_region(watcher, (void *)(uintptr_t)text, sizeof text, "text");
	CHECK_EQ(newest(watcher), 0);
	CHECK_EQ(info_of(watcher, id).ledger.delivered, 0);
	memwatch_close(watcher);
}

/* --- the kernel writes ------------------------------------------------------------------------------------------ */

/* The event of a system call that wrote to the region's start. It is proven where all of the change is one range. */
static void check_kernel_event(memwatch *watcher, uint64_t *seq, const uint8_t *memory, size_t n)
{
	const struct memwatch_event *event = only_event(watcher, *seq);
	CHECK(memcmp(event->new_value, memory, event->size_bytes) == 0);
	CHECK_OP(event->changed_bytes, <=, n);
	CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_NONE);
	if (stats_of(watcher).attribution_available)
		CHECK_TEXT(memwatch_reason_text(event->where.reason), event->n_changes == 1 ? "kernel" : "unknown");
	memwatch_event_unref(event);
	++*seq;
}

static int file_of(const char *text)
{
	int fd = memfd_create("memwatch-test", MFD_CLOEXEC);
	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

TEST(system_calls_write_and_are_seen)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend("uffd");
	struct iovec iov = { memory, 9 };
	uint64_t seq = 0;
	int fds[2];
	add_region(watcher, memory, PAGE, "a");

	CHECK_EQ(read(file_of("read file"), memory, 9), 9);
	check_kernel_event(watcher, &seq, memory, 9);
	CHECK_EQ(readv(file_of("readv ***"), &iov, 1), 9);
	check_kernel_event(watcher, &seq, memory, 9);
	CHECK_EQ(preadv(file_of("xpreadv //"), &iov, 1, 1), 9);
	check_kernel_event(watcher, &seq, memory, 9);
	CHECK_EQ(pread(file_of("xxpread ,,,"), memory, 9, 2), 9);
	check_kernel_event(watcher, &seq, memory, 9);

	CHECK(pipe(fds) == 0 && write(fds[1], "pipe 1234", 9) == 9);
	CHECK_EQ(read(fds[0], memory, 9), 9);
	check_kernel_event(watcher, &seq, memory, 9);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0 && send(fds[1], "stream 12", 9, 0) == 9);
	CHECK_EQ(recv(fds[0], memory, 9, 0), 9);
	check_kernel_event(watcher, &seq, memory, 9);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) == 0 && send(fds[1], "datagram1", 9, 0) == 9);
	CHECK_EQ(recvfrom(fds[0], memory, 100, 0, NULL, NULL), 9);
	check_kernel_event(watcher, &seq, memory, 9);
	CHECK_EQ(getrandom(memory, 64, 0), 64);
	check_kernel_event(watcher, &seq, memory, 64);
	CHECK_EQ(syscall(228 /* clock_gettime */, CLOCK_REALTIME, (struct timespec *)(void *)memory), 0);
	check_kernel_event(watcher, &seq, memory, 16);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(a_user_after_the_kernel_is_known)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend("uffd");
	add_region(watcher, memory, PAGE, "a");
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	uint64_t seq = 0;
	for (int i = 0; i < 10; i++) {
		CHECK_EQ(getrandom(memory, 16, 0), 16);
		check_kernel_event(watcher, &seq, memory, 16);
		poke(memory + 50, (uint8_t)(i + 1));
		const struct memwatch_event *event = only_event(watcher, seq++);
		CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_EXACT);
		memwatch_event_unref(event);
	}
	memwatch_close(watcher);
}

/* A system call opens the page by a neighbour's bytes; the region's writer is not the kernel then. */
TEST(a_neighbour_of_the_kernel_is_not_the_kernel)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_unhurried();
	add_unlent(watcher, memory, 64, "region");
	for (int i = 0; i < 50; i++) {
		CHECK_EQ(getrandom(memory + 1024, 8, 0), 8);
		poke(memory + 3, (uint8_t)(i + 1));
		const struct memwatch_event *event = only_event(watcher, (uint64_t)i);
		CHECK_OP(event->where.attribution, <=, MEMWATCH_ATTRIBUTION_NONE);
		CHECK(event->where.reason != MEMWATCH_REASON_KERNEL);
		memwatch_event_unref(event);
	}
	memwatch_close(watcher);
}

/* The region owns the page, and a user's store follows the system call's into it. */
TEST(who_wrote_after_the_kernel_is_not_the_kernel)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_unhurried();
	add_region(watcher, memory, PAGE, "region");
	for (int i = 0; i < 50; i++) {
		CHECK_EQ(getrandom(memory + 1024, 8, 0), 8);
		poke(memory + 3, (uint8_t)(i + 1));
		const struct memwatch_event *event = only_event(watcher, (uint64_t)i);
		CHECK(event->where.reason != MEMWATCH_REASON_KERNEL);
		memwatch_event_unref(event);
	}
	memwatch_close(watcher);
}

/* --- memory that vanishes --------------------------------------------------------------------------------------- */

static void check_lost(memwatch *watcher, uint64_t id, const char *name)
{
	const struct memwatch_event *event = NULL;
	struct memwatch_cursor cursor = { .next = 0 };
	double end = harness_now_s() + PATIENCE_MS / 1000.0;
	while (!event || event->kind != MEMWATCH_EVENT_LOST) {
		CHECK(harness_now_s() < end);
		if (event)
			memwatch_event_unref(event);
		event = NULL;
		if (memwatch_events_wait(watcher, cursor.next, 1000) == 1)
			CHECK_EQ(memwatch_events_read(watcher, cursor.next, &event, 1, &cursor), 1);
	}
	CHECK_EQ(event->region_id, id);
	CHECK_TEXT(event->name, name);
	memwatch_event_unref(event);
	check_ledgers(watcher);
	OK(memwatch_region_remove(watcher, id)); /* it is listed until then */
	CHECK_EQ(stats_of(watcher).n_regions, 0);
}

BACKEND_TEST(unmapped_memory_ends_the_region)
{
	for (int written = 0; written < 2; written++) {
		uint8_t *memory = map_pages(4);
		memwatch *watcher = open_backend(backend);
		uint64_t id = add_region(watcher, memory, 4 * PAGE, "gone");
		if (written)
			poke(memory + PAGE, 1);
		munmap(memory, 4 * PAGE);
		check_lost(watcher, id, "gone");
		memwatch_close(watcher);
	}
}

BACKEND_TEST(half_of_the_memory_may_vanish)
{
	SKIP_UNDER(UNDER_TSAN || UNDER_ASAN); /* their own mappings fill the hole */
	uint8_t *memory = map_pages(4);
	memwatch *watcher = open_backend(backend);
	uint64_t id = add_region(watcher, memory, 4 * PAGE, "half");
	munmap(memory + 2 * PAGE, 2 * PAGE);
	poke(memory + PAGE, 1);
	check_lost(watcher, id, "half");
	poke(memory + PAGE, 2);
	memwatch_close(watcher);
}

static void check_written(memwatch *watcher, uint64_t id, uint8_t *memory, uint8_t value)
{
	poke(memory, value);
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK(event && event->kind == MEMWATCH_EVENT_CHANGE);
	CHECK_EQ(event->new_value[memory - (uint8_t *)(uintptr_t)info_of(watcher, id).address], value);
	memwatch_event_unref(event);
}

BACKEND_TEST(what_the_host_opens_itself_is_seen)
{
	uint8_t *memory = map_pages(3);
	memwatch *watcher = open_backend(backend);
	uint64_t id = add_region(watcher, memory, PAGE, "a");
	OK(mprotect(memory, PAGE, PROT_READ | PROT_WRITE));
	check_written(watcher, id, memory, 1);
	check_written(watcher, id, memory, 2);
	OK(mprotect(memory, PAGE, PROT_READ));
	OK(mprotect(memory, PAGE, PROT_READ | PROT_WRITE));
	check_written(watcher, id, memory + 8, 3);
	memwatch_close(watcher);
}

/* uffd ends the region, since what lies there is not what was watched. */
TEST(what_the_host_lays_over_it_is_seen)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend("mprotect");
	uint64_t id = add_region(watcher, memory, PAGE, "a");
	poke(memory, 1);
	flush(watcher);
	CHECK(mmap(memory, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory);
	check_written(watcher, id, memory, 2);
	check_written(watcher, id, memory, 3);
	memwatch_close(watcher);
}

/* With mprotect the moved pages are still protected, and nobody knows them: the host would die. */
static void moved_memory_ends_the_region(const char *backend)
{
	uint8_t *memory = map_pages(4);
	memwatch *watcher = open_backend(backend);
	uint64_t id = add_region(watcher, memory, 4 * PAGE, "moved");
	uint8_t *target = map_pages(8);
	uint8_t *moved = mremap(memory, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target);
	CHECK(moved == target);
	poke(moved, 1);
	check_lost(watcher, id, "moved");
	memwatch_close(watcher);
}

TEST(moved_memory_ends_the_region_uffd)
{
	moved_memory_ends_the_region("uffd");
}

TEST(moved_memory_ends_the_region_poll)
{
	moved_memory_ends_the_region("poll");
}

/* What is beyond the end of the file is found out when it is read next; until then the rest goes on. */
BACKEND_TEST(a_file_may_shrink)
{
	memwatch *watcher = open_backend(backend);
	int fd = memfd_create("memwatch-test", MFD_CLOEXEC);
	CHECK(fd >= 0 && ftruncate(fd, 4 * PAGE) == 0);
	uint8_t *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(memory != MAP_FAILED);
	memset(memory, 1, 4 * PAGE);
	uint64_t id = add_region(watcher, memory, 4 * PAGE, "short");
	CHECK(ftruncate(fd, PAGE) == 0);
	poke(memory, 2);
	flush(watcher);
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK(event && (event->kind == MEMWATCH_EVENT_LOST || event->new_preview[0] == 2));
	memwatch_event_unref(event);
	OK(memwatch_region_remove(watcher, id));
	memwatch_close(watcher);
}

/* Other memory at the same address: its bytes count, whether or not it is found out. */
static void replaced_memory_converges_or_is_lost(const char *backend)
{
	uint8_t *memory = map_pages(2);
	memwatch *watcher = open_backend(backend);
	uint64_t id = add_region(watcher, memory, 2 * PAGE, "replaced");
	uint8_t *fresh = mmap(memory, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(fresh == memory);
	poke(memory + 10, 77);
	WAIT_FOR(newest(watcher) > 0);
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK(event->kind == MEMWATCH_EVENT_LOST || event->new_preview[10] == 77);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

TEST(replaced_memory_converges_or_is_lost_uffd)
{
	replaced_memory_converges_or_is_lost("uffd");
}

TEST(replaced_memory_converges_or_is_lost_poll)
{
	replaced_memory_converges_or_is_lost("poll");
}

TEST(discarded_pages_read_as_zero)
{
	uint8_t *memory = map_pages(2);
	memset(memory, 5, 2 * PAGE);
	memwatch *watcher = open_backend("uffd");
	uint64_t id = add_region(watcher, memory, 2 * PAGE, "discarded");
	CHECK(madvise(memory, 2 * PAGE, MADV_DONTNEED) == 0);
	poke(memory, 1);
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK(event && event->kind == MEMWATCH_EVENT_CHANGE);
	CHECK_EQ(event->new_preview[0], 1);
	CHECK_EQ(event->new_preview[1], 0);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}
