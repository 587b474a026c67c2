/*
 * test_vanish.c -- memory that goes away within the window after a write, and a kernel that does not read for us: the
 * process lives, what is gone is lost, and what is there is not.
 */
#include "filters.h"
#include "watching.h"

#include <fcntl.h>
#include <sys/wait.h>

#ifndef MADV_GUARD_INSTALL /* Linux 6.13 */
#define MADV_GUARD_INSTALL 102
#endif

enum { PAGES = 80 }; /* more than what is read with one system call */

struct way {
	const char *name;
	bool (*leave)(uint8_t *memory, int fd); /* false: this kernel cannot */
	bool is_lost;
};

static bool unmap(uint8_t *memory, int fd)
{
	(void)fd;
	return munmap(memory, PAGES * PAGE) == 0;
}

static bool unmap_half(uint8_t *memory, int fd)
{
	(void)fd;
	return munmap(memory + PAGES / 2 * PAGE, PAGES / 2 * PAGE) == 0;
}

static bool forbid(uint8_t *memory, int fd)
{
	(void)fd;
	return mprotect(memory + PAGE, PAGE, PROT_NONE) == 0;
}

static bool guard(uint8_t *memory, int fd)
{
	(void)fd;
	return madvise(memory + (PAGES - 1) * PAGE, PAGE, MADV_GUARD_INSTALL) == 0;
}

static bool cut(uint8_t *memory, int fd)
{
	(void)memory;
	return ftruncate(fd, PAGE) == 0;
}

static bool replace(uint8_t *memory, int fd)
{
	(void)fd;
	return mmap(memory, PAGES * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory;
}

static const struct way ways[] = { { "munmap", unmap, true }, { "half", unmap_half, true },
				   { "none", forbid, true },  { "guard", guard, true },
				   { "cut", cut, true },      { "replaced", replace, false } };
enum { WAYS = sizeof ways / sizeof *ways };

static uint8_t *map(const struct way *way, int *ret_fd)
{
	int fd = memfd_create("memwatch-test", MFD_CLOEXEC);
	CHECK(fd >= 0 && ftruncate(fd, PAGES * PAGE) == 0);
	int flags = way->leave == cut ? MAP_SHARED : MAP_PRIVATE;
	uint8_t *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	CHECK(memory != MAP_FAILED);
	if (way->leave == cut) {
		*ret_fd = fd;
		return memory;
	}
	close(fd);
	CHECK(mmap(memory, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	      memory);
	return memory;
}

/* Only a flush looks: the window does not end before the memory has left. */
static memwatch *open_for_long(const char *backend)
{
	struct memwatch_options options;
	memwatch_options_init(&options);
	options.backend = backend;
	options.window_ms = 10000;
	return open_with(&options);
}

static void leave_by(const char *backend, const struct way *way, uint32_t flags)
{
	struct memwatch_region_options options;
	uint64_t id;
	int fd = -1;
	uint8_t *memory = map(way, &fd);
	memwatch *watcher = open_for_long(backend);
	memwatch_region_options_init(&options);
	options.flags = flags;
	OK(memwatch_region_add(watcher, memory, PAGES * PAGE, &options, &id));
	for (size_t i = 0; i < PAGES; i++)
		poke(memory + i * PAGE, 1);
	if (!way->leave(memory, fd))
		SKIP(way->name);
	/* mprotect closes pages that were written, and so makes readable what the host has forbidden. */
	if (way->is_lost && !(way->leave == forbid && strcmp(backend, "mprotect") == 0))
		WAIT_FOR(has_lost(watcher, id));
	else
		flush(watcher);
	check_ledgers(watcher);
	OK(memwatch_region_remove(watcher, id));
	memwatch_close(watcher);
	if (fd >= 0)
		close(fd);
}

BACKEND_TEST(memory_vanishes_within_the_window)
{
	SKIP_UNDER(UNDER_TSAN || UNDER_ASAN); /* their own mappings fill the hole */
	for (size_t i = 0; i < WAYS; i++)
		leave_by(backend, &ways[i], 0);
}

BACKEND_TEST(memory_of_a_hashed_region_vanishes_within_the_window)
{
	SKIP_UNDER(UNDER_TSAN || UNDER_ASAN);
	for (size_t i = 0; i < WAYS; i++)
		leave_by(backend, &ways[i], MEMWATCH_REGION_HASHED);
}

/* Nobody writes, and the hole is neither at the beginning nor at the end. */
BACKEND_TEST(a_hole_in_memory_that_rests_is_found)
{
	SKIP_UNDER(UNDER_TSAN || UNDER_ASAN);
	uint8_t *memory = map_pages(9);
	memwatch *watcher = open_backend(backend);
	uint64_t id = add_region(watcher, memory, 9 * PAGE, "hole");
	CHECK(munmap(memory + 4 * PAGE, PAGE) == 0);
	WAIT_FOR(has_lost(watcher, id));
	memwatch_close(watcher);
}

/* They are looked at together: the ones that are gone are told, and no other. */
BACKEND_TEST(of_many_that_rest_those_that_vanish_are_found)
{
	enum { N = 200 };
	SKIP_UNDER(UNDER_TSAN || UNDER_ASAN);
	uint8_t *memory = map_pages(N);
	uint64_t ids[N];
	char name[16];
	memwatch *watcher = open_backend(backend);
	for (size_t i = 0; i < N; i++) {
		snprintf(name, sizeof name, "r%zu", i);
		ids[i] = add_region(watcher, memory + i * PAGE, 64, name);
	}
	for (size_t i = 50; i < N; i += 50)
		CHECK(munmap(memory + i * PAGE, PAGE) == 0);
	for (size_t i = 50; i < N; i += 50)
		WAIT_FOR(has_lost(watcher, ids[i]));
	CHECK_EQ(newest(watcher), 3);
	memwatch_close(watcher);
}

static void write_all(uint8_t *memory, size_t n_pages)
{
	for (size_t i = 0; i < n_pages; i++)
		poke(memory + i * PAGE, (uint8_t)(i + 1));
}

/* What is left of a region with a hole can be written by everybody when it is given back, and by a forked child. */
BACKEND_TEST(what_is_left_behind_a_hole_can_be_written)
{
	SKIP_UNDER(UNDER_TSAN || UNDER_ASAN);
	uint8_t *memory = map_pages(9);
	memwatch *watcher = open_backend(backend);
	uint64_t id = add_region(watcher, memory, 9 * PAGE, "hole");
	CHECK(munmap(memory, PAGE) == 0 && munmap(memory + 4 * PAGE, PAGE) == 0);
	pid_t child = fork();
	if (child == 0) {
		write_all(memory + PAGE, 3);
		write_all(memory + 5 * PAGE, 4);
		_exit(0);
	}
	int status;
	CHECK(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	OK(memwatch_region_remove(watcher, id));
	write_all(memory + PAGE, 3);
	write_all(memory + 5 * PAGE, 4);
	memwatch_close(watcher);
}

/* Nobody writes, and the file loses its end. */
BACKEND_TEST(a_file_that_is_cut_at_rest_is_found)
{
	int fd = memfd_create("memwatch-test", MFD_CLOEXEC);
	CHECK(fd >= 0 && ftruncate(fd, 9 * PAGE) == 0);
	uint8_t *memory = mmap(NULL, 9 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(memory != MAP_FAILED);
	memwatch *watcher = open_backend(backend);
	uint64_t id = add_region(watcher, memory, 9 * PAGE, "cut");
	CHECK(ftruncate(fd, PAGE) == 0);
	WAIT_FOR(has_lost(watcher, id));
	memwatch_close(watcher);
}

/* --- the kernel does not read for us --------------------------------------------------------------------------- */

static const int reading[] = { SYS_process_vm_readv, SYS_process_vm_writev };

static void change_is_told(memwatch *watcher, uint64_t id, uint8_t *address, uint8_t value)
{
	poke(address, value);
	flush(watcher);
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK(event && event->kind == MEMWATCH_EVENT_CHANGE);
	CHECK_EQ(event->new_preview[0], value);
	memwatch_event_unref(event);
}

/* A sandbox that is entered after the start: regions go on, and others can be added. */
static void refused_reading_is_no_loss(const char *backend, uint32_t answer)
{
	uint8_t *memory = map_pages(PAGES), *other = map_pages(PAGES);
	memwatch *watcher = open_backend(backend);
	uint64_t id = add_region(watcher, memory, PAGES * PAGE, "before");
	change_is_told(watcher, id, memory, 1);
	FILTER_ALL(reading, SECCOMP_RET_ERRNO | answer);
	change_is_told(watcher, id, memory, 2);
	memset(memory, 3, PAGES * PAGE);
	change_is_told(watcher, id, memory, 4);
	uint64_t later = add_region(watcher, other, PAGES * PAGE, "after");
	change_is_told(watcher, later, other, 5);
	CHECK_EQ(stats_of(watcher).dropped_by[MEMWATCH_DROP_VANISHED], 0);
	check_ledgers(watcher);
	munmap(other, PAGES * PAGE);
	WAIT_FOR(has_lost(watcher, later));
	memwatch_close(watcher);
}

BACKEND_TEST(reading_that_is_refused_is_no_loss)
{
	refused_reading_is_no_loss(backend, EPERM);
}

BACKEND_TEST(reading_that_the_kernel_does_not_know_is_no_loss)
{
	refused_reading_is_no_loss(backend, ENOSYS);
}

/* No way is left: what was written is accounted for, the region stays, and what its owner promises can be watched. */
TEST(without_any_way_to_read_nothing_is_lost)
{
	static const int all[] = { SYS_process_vm_readv, SYS_process_vm_writev, SYS_pipe2 };
	uint8_t *memory = map_pages(2), *kept = map_pages(2), *other = map_pages(2);
	struct memwatch_region_options options;
	memwatch *watcher = open_backend("poll");
	uint64_t id = add_region(watcher, memory, 100, "memory"), kept_id;
	FILTER_ALL(all, SECCOMP_RET_ERRNO | EPERM);
	poke(memory, 1);
	flush(watcher);
	CHECK_OP(stats_of(watcher).dropped_by[MEMWATCH_DROP_UNREADABLE], >, 0);
	CHECK(!has_lost(watcher, id));
	check_ledgers(watcher);
	FAILS(memwatch_region_add(watcher, other, 100, NULL, NULL), EPERM);
	memwatch_region_options_init(&options);
	options.flags = MEMWATCH_REGION_PINNED;
	SKIP_UNDER(UNDER_TSAN); /* where nothing is read directly */
	OK(memwatch_region_add(watcher, kept, 100, &options, &kept_id));
	change_is_told(watcher, kept_id, kept, 7);
	memwatch_close(watcher);
}

enum { MANY_PAGES = 256 }; /* more than is read at once */

static atomic_bool enough;

/* Now there are descriptors for a pipe, and now there are none. */
static void *toggle_descriptors(void *arg)
{
	const struct rlimit *all = arg, none = { 0, all->rlim_max };
	while (!atomic_load(&enough)) {
		CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
		sched_yield();
		CHECK(setrlimit(RLIMIT_NOFILE, all) == 0);
		sched_yield();
	}
	return NULL;
}

/* Applies what events tell; each begins with what the one before it left. */
static void follow(memwatch *watcher, struct memwatch_cursor *cursor, uint8_t *mirror)
{
	const struct memwatch_event *event;
	uint64_t run[2];
	for (; memwatch_events_read(watcher, cursor->next, &event, 1, cursor) == 1; memwatch_event_unref(event)) {
		CHECK_EQ(event->kind, MEMWATCH_EVENT_CHANGE);
		CHECK(event->patch);
		for (uint64_t at = 0; at < event->patch_bytes; at += sizeof run + run[1]) {
			memcpy(run, event->patch + at, sizeof run);
			CHECK(memcmp(mirror + run[0], event->patch_old + at + sizeof run, run[1]) == 0);
			memcpy(mirror + run[0], event->patch + at + sizeof run, run[1]);
		}
	}
}

/* Reading is refused in the middle of a region: what was read of it by then is told, and what was not later. */
TEST(what_was_read_before_a_refusal_is_told)
{
	static const int copies[] = { SYS_process_vm_readv, SYS_process_vm_writev };
	static uint8_t mirror[MANY_PAGES * PAGE], loaded[MANY_PAGES * PAGE];
	uint8_t *memory = map_pages(MANY_PAGES);
	struct memwatch_options options;
	struct memwatch_cursor cursor = { .next = 0 };
	struct rlimit limit;
	pthread_t toggler;
	memwatch_options_init(&options);
	options.patches = 1;
	memwatch *watcher = open_with(&options);
	uint64_t id = add_region(watcher, memory, sizeof mirror, "large");
	FILTER_ALL(copies, SECCOMP_RET_ERRNO | EPERM);
	CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	CHECK(pthread_create(&toggler, NULL, toggle_descriptors, &limit) == 0);
	for (uint64_t n = 0; stats_of(watcher).dropped_by[MEMWATCH_DROP_UNREADABLE] + cursor.next < 200; n++) {
		for (unsigned page = 0; page < MANY_PAGES; page++)
			poke(memory + page * PAGE + n % 7, (uint8_t)harness_random());
		flush(watcher);
		follow(watcher, &cursor, mirror);
	}
	atomic_store(&enough, true);
	pthread_join(toggler, NULL);
	flush(watcher);
	follow(watcher, &cursor, mirror);
	CHECK(memcmp(mirror, memory, sizeof mirror) == 0);
	OK(memwatch_version_read(watcher, id, 0, loaded, sizeof loaded));
	for (size_t i = 0; i < sizeof loaded; i++)
		CHECK_EQ(loaded[i], 0);
	check_ledgers(watcher);
	memwatch_close(watcher);
}
