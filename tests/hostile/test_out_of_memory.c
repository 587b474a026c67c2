/*
 * test_out_of_memory.c -- the n-th allocation fails, once or from then on, for each n that there is: mappings, which
 * the library makes its own memory of, and malloc, which the libraries below it use. Calls may fail then, with a
 * sentence; the host lives, and what was told balances.
 */
#include "hostile.h"

#include <sys/mman.h>
#include <sys/syscall.h>

enum { N_PAGES = 8, EVERY = 7, LAST_SMALL = 30 };

static _Atomic long countdown; /* allocations until one fails; negative: it has */
static _Atomic int armed;      /* 1: fails once, 2: from then on */

static bool fails_now(void)
{
	if (!atomic_load(&armed))
		return false;
	long left = atomic_fetch_sub(&countdown, 1);
	return left == 0 || (left < 0 && atomic_load(&armed) == 2);
}

/* In front of the C library's, for the program and the libraries that it is linked with. */
void *mmap(void *address, size_t size_bytes, int protection, int flags, int fd, off_t offset)
{
	if (fails_now()) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return (void *)syscall(SYS_mmap, address, size_bytes, protection, flags, fd, offset);
}

void *__libc_malloc(size_t size_bytes);
void *__libc_calloc(size_t n, size_t size_bytes);
void *__libc_realloc(void *memory, size_t size_bytes);

void *malloc(size_t size_bytes)
{
	return fails_now() ? NULL : __libc_malloc(size_bytes);
}

void *calloc(size_t n, size_t size_bytes)
{
	return fails_now() ? NULL : __libc_calloc(n, size_bytes);
}

void *realloc(void *memory, size_t size_bytes)
{
	return fails_now() ? NULL : __libc_realloc(memory, size_bytes);
}

static void use(memwatch *watcher, uint8_t *memory)
{
	struct memwatch_region_options options;
	struct memwatch_cursor cursor;
	const struct memwatch_event *events[16];
	memwatch_region_options_init(&options);
	options.name = "page";
	memwatch_region_add(watcher, memory, (size_t)N_PAGES * PAGE, &options, NULL);
	for (unsigned i = 0; i < N_PAGES; i++) {
		poke(memory + i * PAGE, (uint8_t)(i + 1));
		memwatch_flush(watcher, PATIENCE_MS);
	}
	int n = memwatch_events_read(watcher, 0, events, 16, &cursor);
	for (int i = 0; i < n; i++)
		memwatch_event_unref(events[i]);
}

/* In a child: the exit status says whether the allocation was reached. */
static void host(const char *backend, long n, int how)
{
	struct memwatch_options options;
	memwatch *watcher = NULL;
	static uint8_t memory[N_PAGES * PAGE] __attribute__((aligned(PAGE)));
	memwatch_options_init(&options);
	options.backend = backend;
	atomic_store(&countdown, n);
	atomic_store(&armed, how);
	int error = memwatch_open(&options, &watcher);
	if (error)
		CHECK(strlen(memwatch_error()) > 10);
	else
		use(watcher, memory);
	bool reached = atomic_load(&countdown) < 0;
	atomic_store(&armed, 0);
	if (!error) {
		flush(watcher);
		check_ledgers(watcher);
		memwatch_close(watcher);
	}
	_exit(reached ? 0 : 3);
}

/* False when there are fewer than `n` allocations. */
static bool survives(const char *backend, long n, int how)
{
	int status;
	pid_t child = fork();
	if (child == 0)
		host(backend, n, how);
	CHECK(waitpid(child, &status, 0) == child);
	if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3))
		FAIL("%s, allocation %ld, %s: status 0x%x", backend, n, how == 1 ? "once" : "from then on",
		     (unsigned)status);
	return WEXITSTATUS(status) == 0;
}

BEHAVIOUR(has_one_allocation_fail)
{
	SKIP_UNDER(UNDER_ASAN);
	SKIP_UNDER(UNDER_TSAN);
	for (long n = 0; survives(backend, n, 1); n += n < LAST_SMALL || getenv("MEMWATCH_STRESS") ? 1 : EVERY)
		;
}

BEHAVIOUR(has_no_memory_from_then_on)
{
	SKIP_UNDER(UNDER_ASAN);
	SKIP_UNDER(UNDER_TSAN);
	for (long n = 0; survives(backend, n, 2); n += n < LAST_SMALL || getenv("MEMWATCH_STRESS") ? 1 : EVERY)
		;
}
