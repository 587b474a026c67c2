/*
 * test_host.c -- the host program behaves as without us: its crashes, its signal handlers, its exits.
 */
#include "watching.h"

#include <dirent.h>
#include <sched.h>
#include <setjmp.h>

#ifdef __aarch64__ /* a handler that returns comes back to it there */
#define BREAKPOINT() __asm__ volatile("brk #0")
#else
#define BREAKPOINT() __asm__ volatile("int3")
#endif

static memwatch *watcher_of_page(const char *backend, uint8_t **ret_memory)
{
	*ret_memory = map_pages(1);
	memwatch *watcher = open_backend(backend);
	add_region(watcher, *ret_memory, PAGE, "a");
	poke(*ret_memory, 1);
	memwatch_event_unref(only_event(watcher, 0));
	return watcher;
}

static uint8_t *volatile nowhere = (uint8_t *)8;

static void wild_write(void)
{
	poke(nowhere, 1);
}

/* --- crashes ---------------------------------------------------------------------------------------------------- */

static uint8_t *page;

TEST_DIES(a_wild_write_is_a_crash_uffd, SIGSEGV)
{
	watcher_of_page("uffd", &page);
	wild_write();
}

TEST_DIES(a_wild_write_is_a_crash_mprotect, SIGSEGV)
{
	watcher_of_page("mprotect", &page);
	wild_write();
}

TEST_DIES(a_wild_write_is_a_crash_poll, SIGSEGV)
{
	watcher_of_page("poll", &page);
	wild_write();
}

TEST_DIES(a_wild_write_after_close_is_a_crash, SIGSEGV)
{
	memwatch_close(watcher_of_page("mprotect", &page));
	wild_write();
}

TEST_DIES(writing_read_only_memory_is_a_crash, SIGSEGV)
{
	uint8_t *memory;
	watcher_of_page("mprotect", &memory);
	uint8_t *constant = map_pages(1);
	mprotect(constant, PAGE, PROT_READ);
	poke(constant, 1);
}

TEST_DIES(a_bus_error_is_one, SIGBUS)
{
	char path[] = "/tmp/memwatch-bus-XXXXXX";
	watcher_of_page("mprotect", &page);
	int fd = mkstemp(path);
	CHECK(fd >= 0 && unlink(path) == 0);
	uint8_t *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	poke(memory, 1);
}

TEST_DIES(a_killed_process_dies_of_segv, SIGSEGV)
{
	watcher_of_page("mprotect", &page);
	kill(getpid(), SIGSEGV);
	for (;;)
		pause();
}

TEST_DIES(a_breakpoint_without_a_handler_kills, SIGTRAP)
{
	watcher_of_page("uffd", &page);
	BREAKPOINT();
}

TEST_DIES(a_raised_trap_kills, SIGTRAP)
{
	watcher_of_page("uffd", &page);
	raise(SIGTRAP);
}

TEST_DIES(an_abort_is_one, SIGABRT)
{
	watcher_of_page("uffd", &page);
	abort();
}

/* --- handlers of the host --------------------------------------------------------------------------------------- */

static sigjmp_buf back;
static volatile siginfo_t seen;
static volatile int n_seen;

static void on_signal(int signal, siginfo_t *info, void *context)
{
	(void)context;
	seen = *info;
	n_seen++;
	if (signal == SIGSEGV)
		siglongjmp(back, 1);
}

static void handle(int signal)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER };
	CHECK(sigaction(signal, &action, NULL) == 0);
}

/* A wild write reaches the host's handler with its address, and the watched page goes on giving events. */
static void check_segv(memwatch *watcher, uint8_t *memory)
{
	for (volatile int i = 0; i < 5; i++) {
		uint64_t since = newest(watcher);
		n_seen = 0;
		if (sigsetjmp(back, 1) == 0)
			wild_write();
		CHECK_EQ(n_seen, 1);
		CHECK_EQ(seen.si_signo, SIGSEGV);
		CHECK_EQ(seen.si_code, SEGV_MAPERR);
		CHECK(seen.si_addr == (void *)8);
		n_seen = 0;
		if (sigsetjmp(back, 1) == 0)
			poke(memory + 10, (uint8_t)(i + 1));
		CHECK_EQ(n_seen, 0);
		memwatch_event_unref(only_event(watcher, since));
	}
}

BACKEND_TEST(a_handler_from_before_gets_its_crash)
{
	uint8_t *memory;
	handle(SIGSEGV);
	memwatch *watcher = watcher_of_page(backend, &memory);
	check_segv(watcher, memory);
	memwatch_close(watcher);
}

static void a_handler_from_after_gets_its_crash(const char *backend)
{
	uint8_t *memory;
	memwatch *watcher = watcher_of_page(backend, &memory);
	handle(SIGSEGV);
	check_segv(watcher, memory);
	memwatch_close(watcher);
}

TEST(a_handler_from_after_gets_its_crash_uffd)
{
	a_handler_from_after_gets_its_crash("uffd");
}

TEST(a_handler_from_after_gets_its_crash_poll)
{
	a_handler_from_after_gets_its_crash("poll");
}

/* With mprotect somebody must pass before the next write, so that our handler is back in front. */
TEST(a_handler_from_after_gets_its_crash_mprotect)
{
	uint8_t *memory;
	memwatch *watcher = watcher_of_page("mprotect", &memory);
	handle(SIGSEGV);
	flush(watcher);
	check_segv(watcher, memory);
	memwatch_close(watcher);
}

static void check_trap(memwatch *watcher, uint8_t *memory)
{
	for (int i = 0; i < 5; i++) {
		uint64_t since = newest(watcher);
		n_seen = 0;
		BREAKPOINT();
		CHECK_EQ(n_seen, 1);
		CHECK_EQ(seen.si_signo, SIGTRAP);
		CHECK_EQ(seen.si_code, SI_KERNEL);
		raise(SIGTRAP);
		CHECK_EQ(n_seen, 2);
		CHECK_EQ(seen.si_code, SI_TKILL);
		CHECK_EQ(seen.si_pid, getpid());
		poke(memory + 10, (uint8_t)(i + 1));
		memwatch_event_unref(only_event(watcher, since));
		CHECK_EQ(n_seen, 2);
	}
}

TEST(a_trap_handler_from_before_gets_its_traps)
{
	uint8_t *memory;
	handle(SIGTRAP);
	memwatch *watcher = watcher_of_page("uffd", &memory);
	check_trap(watcher, memory);
	memwatch_close(watcher);
	n_seen = 0;
	BREAKPOINT();
	CHECK_EQ(n_seen, 1);
}

TEST(a_trap_handler_from_after_gets_its_traps)
{
	uint8_t *memory;
	memwatch *watcher = watcher_of_page("uffd", &memory);
	handle(SIGTRAP);
	WAIT_FOR(stats_of(watcher).handler_lost > 0);
	n_seen = 0;
	check_trap(watcher, memory);
	memwatch_close(watcher);
}

/* A handler that asks for an alternative stack gets it, and nested faults in a handler are noted. */
static uint8_t *written_by_handler;

static void write_in_handler(int signal)
{
	(void)signal;
	poke(written_by_handler, (uint8_t)(*written_by_handler + 1));
}

BACKEND_TEST(a_handler_may_write_watched_memory)
{
	SKIP_UNDER(UNDER_TSAN);
	uint8_t *memory;
	memwatch *watcher = watcher_of_page(backend, &memory);
	written_by_handler = memory + 5;
	signal(SIGUSR1, write_in_handler);
	for (uint64_t i = 1; i < 20; i++) {
		raise(SIGUSR1);
		memwatch_event_unref(only_event(watcher, i));
	}
	memwatch_close(watcher);
}

/*
 * Ours stays in front after the end, since a signal may still be on its way to a thread that blocks it; it passes all
 * on.
 */
TEST(handlers_of_the_host_work_after_close)
{
	uint8_t *memory;
	handle(SIGTRAP);
	handle(SIGSEGV);
	memwatch_close(watcher_of_page("mprotect", &memory));
	memwatch_close(watcher_of_page("uffd", &memory));
	n_seen = 0;
	BREAKPOINT();
	CHECK_EQ(n_seen, 1);
	if (sigsetjmp(back, 1) == 0)
		wild_write();
	CHECK_EQ(n_seen, 2);
	CHECK(seen.si_addr == (void *)8);
}

/* A handler that keeps what was there before and hands on what it does not know, as crash reporters do. */
static struct sigaction before_chain;
static volatile int n_chained;

static void on_chain(int signal, siginfo_t *info, void *context)
{
	if (++n_chained > 20)
		_exit(9); /* round and round */
	if (before_chain.sa_flags & SA_SIGINFO) {
		before_chain.sa_sigaction(signal, info, context);
		return;
	}
	struct sigaction plain = { .sa_handler = SIG_DFL };
	sigaction(signal, &plain, NULL);
}

static void handle_by_chain(int signal)
{
	struct sigaction action = { .sa_sigaction = on_chain, .sa_flags = SA_SIGINFO | SA_NODEFER };
	CHECK(sigaction(signal, &action, &before_chain) == 0);
}

TEST_DIES(a_chain_from_before_ends_in_the_crash, SIGSEGV)
{
	handle_by_chain(SIGSEGV);
	watcher_of_page("mprotect", &page);
	wild_write();
}

TEST_DIES(a_chain_from_after_ends_in_the_crash, SIGSEGV)
{
	memwatch *watcher = watcher_of_page("mprotect", &page);
	handle_by_chain(SIGSEGV);
	flush(watcher); /* ours is in front again, with theirs behind it, with ours behind that */
	poke(page, 9);
	memwatch_event_unref(only_event(watcher, 1));
	wild_write();
}

TEST_DIES(a_trap_chain_from_after_ends_in_the_trap, SIGTRAP)
{
	memwatch *watcher = watcher_of_page("uffd", &page);
	handle_by_chain(SIGTRAP);
	WAIT_FOR(stats_of(watcher).handler_lost > 0);
	BREAKPOINT();
	for (;;)
		pause();
}

/* --- a fault on its way while its page is given back ------------------------------------------------------------- */

static _Atomic bool stop_writing;

static void *write_without_end(void *memory)
{
	for (uint8_t value = 0; !atomic_load_explicit(&stop_writing, memory_order_relaxed); value++)
		poke(memory, value);
	return NULL;
}

/* With mprotect the page is open when the fault's signal comes, and no longer known to be ours. */
BACKEND_TEST(a_writer_survives_every_unwatch)
{
	pthread_t thread;
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend(backend);
	CHECK(pthread_create(&thread, NULL, write_without_end, memory) == 0);
	for (double n = 0; n < of_load(2000); n++)
		OK(memwatch_region_remove(watcher, add_region(watcher, memory, PAGE, "a")));
	memwatch_close(watcher);
	atomic_store(&stop_writing, true);
	pthread_join(thread, NULL);
}

TEST_DIES(writing_a_page_that_was_watched_and_is_read_only_is_a_crash, SIGSEGV)
{
	memwatch_close(watcher_of_page("mprotect", &page));
	CHECK(mprotect(page, PAGE, PROT_READ) == 0);
	poke(page, 2);
}

/* --- the rest --------------------------------------------------------------------------------------------------- */

static _Atomic int n_delivered;

static void count(const struct memwatch_event *event, void *arg)
{
	(void)event;
	(void)arg;
	atomic_fetch_add(&n_delivered, 1);
}

TEST(a_process_may_end_without_closing)
{
	uint8_t *memory;
	memwatch *watcher = watcher_of_page("uffd", &memory);
	OK(memwatch_callback_set(watcher, count, NULL));
	poke(memory, 2);
	exit(0);
}

/* System calls are not interrupted by our signals where they were not before. */
static void *write_for_a_while(void *arg)
{
	for (int i = 0; i < 200; i++) {
		poke(arg, (uint8_t)(i + 1));
		usleep(500);
	}
	return NULL;
}

BACKEND_TEST(blocking_calls_are_not_interrupted)
{
	uint8_t *memory;
	int fds[2];
	memwatch *watcher = watcher_of_page(backend, &memory);
	pthread_t thread;
	char byte;
	CHECK(pipe(fds) == 0);
	CHECK(pthread_create(&thread, NULL, write_for_a_while, memory) == 0);
	struct timespec delay = { .tv_nsec = 100 * 1000 * 1000 };
	CHECK(nanosleep(&delay, NULL) == 0);
	pthread_join(thread, NULL);
	CHECK(write(fds[1], "x", 1) == 1 && read(fds[0], &byte, 1) == 1);
	memwatch_close(watcher);
}

/* Our handler must fit on the stack of the writer. */
static void *write_on_a_small_stack(void *arg)
{
	poke(arg, 123);
	return NULL;
}

BACKEND_TEST(a_small_stack_is_enough)
{
	uint8_t *memory;
	memwatch *watcher = watcher_of_page(backend, &memory);
	pthread_attr_t attr;
	pthread_t thread;
	pthread_attr_init(&attr);
	CHECK(pthread_attr_setstacksize(&attr, (size_t)sysconf(_SC_THREAD_STACK_MIN)) == 0);
	CHECK(pthread_create(&thread, &attr, write_on_a_small_stack, memory) == 0);
	pthread_join(thread, NULL);
	memwatch_event_unref(only_event(watcher, 1));
	memwatch_close(watcher);
}

struct beside {
	memwatch *watcher;
	uint8_t *memory;
};

static void *watch_beside(void *arg)
{
	const struct beside *beside = arg;
	add_region(beside->watcher, beside->memory, 64, "watched by another thread");
	return NULL;
}

/* The kernel could not deliver the fault's signal on a stack that is closed. */
BACKEND_TEST(a_signal_stack_may_share_pages_with_regions)
{
	uint8_t *memory = map_pages(9);
	stack_t stack = { .ss_sp = memory + 256, .ss_size = 8 * PAGE };
	CHECK_EQ(sigaltstack(&stack, NULL), 0);
	memwatch *watcher = open_backend(backend);
	add_region(watcher, memory, 64, "before");
	struct beside beside = { watcher, memory + 8 * PAGE + 512 };
	pthread_t thread;
	CHECK_EQ(pthread_create(&thread, NULL, watch_beside, &beside), 0);
	pthread_join(thread, NULL);
	uint8_t *ordinary = map_pages(1); /* a fault whose signal needs the stack */
	add_region(watcher, ordinary, PAGE, "ordinary");
	poke(ordinary, 1);
	memwatch_event_unref(only_event(watcher, 0));
	poke(memory, 1);
	memwatch_event_unref(only_event(watcher, 1));
	poke(beside.memory, 1);
	memwatch_event_unref(only_event(watcher, 2));
	memwatch_close(watcher);
}

TEST(vfork_works)
{
	SKIP_UNDER(UNDER_TSAN);
	uint8_t *memory;
	memwatch *watcher = watcher_of_page("uffd", &memory);
	for (int i = 0; i < 20; i++) {
		uint64_t since = newest(watcher);
		int status;
		pid_t child = vfork();
		if (child == 0) {
			poke(memory + 20, (uint8_t)(i + 1)); /* the parent's own memory */
			_exit(0);
		}
		CHECK(waitpid(child, &status, 0) == child && status == 0);
		const struct memwatch_event *event = only_event(watcher, since);
		CHECK_EQ(event->new_value[20], i + 1);
		memwatch_event_unref(event);
	}
	memwatch_close(watcher);
}

TEST(the_library_prints_nothing)
{
	int fds[2];
	char byte;
	CHECK(pipe(fds) == 0);
	int out = dup(1), err = dup(2);
	dup2(fds[1], 1);
	dup2(fds[1], 2);
	close(fds[1]);
	uint8_t *memory;
	memwatch *watcher = watcher_of_page("uffd", &memory);
	memwatch_region_add(watcher, NULL, 0, NULL, NULL);
	memwatch_load(watcher, "nonsense", NULL, 0);
	munmap(memory, PAGE);
	flush(watcher);
	memwatch_close(watcher);
	dup2(out, 1);
	dup2(err, 2);
	CHECK_EQ(read(fds[0], &byte, 1), 0);
}

/* --- the scheduler ---------------------------------------------------------------------------------------------- */

/* Of how many threads of that name is that the policy? */
static int count_threads(const char *name, int policy)
{
	char path[300], comm[32] = "";
	int n = 0;
	DIR *tasks = opendir("/proc/self/task");
	CHECK(tasks != NULL);
	for (const struct dirent *task; (task = readdir(tasks));) {
		snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
		FILE *file = fopen(path, "r");
		if (!file)
			continue;
		if (fscanf(file, "%31s", comm) == 1 && strcmp(comm, name) == 0)
			n += sched_getscheduler(atoi(task->d_name)) == policy;
		fclose(file);
	}
	closedir(tasks);
	return n;
}

TEST(the_worker_preempts_nobody)
{
	uint8_t *memory;
	const struct sched_param none = { 0 };
	if (sched_setscheduler(0, SCHED_BATCH, &none) < 0 || sched_setscheduler(0, SCHED_OTHER, &none) < 0)
		SKIP("a thread may not choose its scheduling here");
	memwatch *watcher = watcher_of_page("auto", &memory);
	CHECK_EQ(count_threads("memwatch", SCHED_BATCH), 1);
	CHECK_EQ(count_threads("memwatch", SCHED_OTHER), 0);
	CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
	memwatch_close(watcher);
}

TEST(the_worker_of_a_real_time_thread_is_one_too)
{
	uint8_t *memory;
	if (sched_setscheduler(0, SCHED_RR, &(struct sched_param){ .sched_priority = 1 }) < 0)
		SKIP("no real-time scheduling here");
	memwatch *watcher = watcher_of_page("auto", &memory);
	CHECK_EQ(count_threads("memwatch", SCHED_RR), 1);
	memwatch_close(watcher);
}
