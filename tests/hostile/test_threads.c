/*
 * test_threads.c -- what hosts do with threads that the C library did not make, or whose first one has ended.
 */
#include "hostile.h"

#include <sched.h>
#include <sys/syscall.h>

enum { N_PAGES = 8, N_WRITES = 40, STACK_BYTES = 1 << 16 };
#define SIZE_BYTES ((size_t)N_PAGES * PAGE)

#if defined(__x86_64__)

/* No call of the C library's: there is no errno here. */
static __attribute__((noinline, optimize("no-stack-protector"))) int write_and_end(void *arg)
{
	for (int i = 0; i < N_WRITES; i++) {
		struct timespec pause = { .tv_nsec = 1000000 };
		long result = SYS_nanosleep;
		((volatile uint8_t *)arg)[i % N_PAGES * PAGE] = (uint8_t)(i + 1);
		__asm__ volatile("syscall" : "+a"(result) : "D"(&pause), "S"(0) : "rcx", "r11", "memory");
	}
	__asm__ volatile("syscall" : : "a"(SYS_exit), "D"(0));
	__builtin_unreachable();
}

static void run_thread(uint8_t *memory, void *storage)
{
	static volatile pid_t thread;
	const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
			  CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
	uint8_t *stack = map_pages(STACK_BYTES / PAGE);
	CHECK(clone(write_and_end, stack + STACK_BYTES, flags, memory, &thread, storage, &thread) > 0);
	WAIT_FOR(thread == 0);
}

/* As runtimes with threads of their own do: clone(2), with no thread pointer or one of their own. */
BEHAVIOUR(writes_in_threads_without_storage)
{
	SKIP_UNDER(UNDER_ASAN || UNDER_TSAN);
	uint8_t *memory = map_pages(N_PAGES);
	memwatch *watcher = open_backend(backend);
	uint64_t id = add_region(watcher, memory, SIZE_BYTES, "memory");
	run_thread(memory, NULL);
	run_thread(memory, map_pages(4) + 2 * PAGE);
	check_converged(watcher, id, memory);
	poke(memory, 77);
	check_converged(watcher, id, memory);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

#endif

/* What a process has in /proc/self is its first thread's, of which nothing is left then. */
struct left {
	pthread_t first;
	const char *backend;
	char first_backend[16]; /* that the first thread got for its memory */
};

static __attribute__((noinline, noclone)) void write_as_last(uint8_t *memory, uint8_t value)
{
	poke(memory, value);
}

static void *outlive(void *arg)
{
	struct left *left = arg;
	uint8_t *memory = map_pages(N_PAGES);
	CHECK(pthread_join(left->first, NULL) == 0);
	struct memwatch_options options;
	memwatch *watcher;
	memwatch_options_init(&options);
	options.backend = left->backend;
	options.attribution_budget = 1;
	OK(memwatch_open(&options, &watcher));
	uint64_t id = add_region(watcher, memory, SIZE_BYTES, "memory");
	write_as_last(memory + PAGE, 5);
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK(event);
	CHECK(strcmp(event->backend, left->first_backend) == 0);
	if (event->where.attribution == MEMWATCH_ATTRIBUTION_EXACT)
		CHECK(strcmp(event->where.symbol, "write_as_last") == 0);
	memwatch_event_unref(event);
	memwatch_close(watcher);
	exit(0);
}

BEHAVIOUR(goes_on_without_its_first_thread)
{
	SKIP_UNDER(UNDER_ASAN || UNDER_TSAN);
	static struct left left;
	pthread_t thread;
	memwatch *watcher = open_backend(backend); /* the last one can do what the first can */
	left = (struct left){ .first = pthread_self(), .backend = backend };
	snprintf(left.first_backend, sizeof left.first_backend, "%s",
		 info_of(watcher, add_region(watcher, map_pages(N_PAGES), SIZE_BYTES, "memory")).backend);
	memwatch_close(watcher);
	CHECK(pthread_create(&thread, NULL, outlive, &left) == 0);
	pthread_exit(NULL);
}
