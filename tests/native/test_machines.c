/*
 * test_machines.c -- machines that refuse: under each seccomp filter a watcher opens, a change is told, the host's
 * calls succeed and the host lives.
 */
#include "filters.h"
#include "watching.h"

#include "base/pages.h"

#include <sys/resource.h>
#include <sys/uio.h>

static memwatch *open_default(void)
{
	memwatch *watcher = NULL;
	OK(memwatch_open(NULL, &watcher));
	return watcher;
}

/* What the kernel writes for the host must arrive whole, whatever is watched. */
static void read_into(int (*ends)[2], uint8_t *memory, size_t n)
{
	struct iovec parts[] = { { memory, n / 2 }, { memory + n / 2, n - n / 2 } };
	static uint8_t bytes[16 * PAGE];
	memset(bytes, 0x5a, n);
	CHECK(pipe(*ends) == 0);
	CHECK_EQ(write((*ends)[1], bytes, n), n);
	CHECK_EQ(readv((*ends)[0], parts, 2), n);
	CHECK(memcmp(memory, bytes, n) == 0);
}

static void check_no_handler(void)
{
	struct sigaction action;
	CHECK(sigaction(SIGSEGV, NULL, &action) == 0);
	CHECK(!(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_DFL);
}

/* Opens with the defaults: a store is told, a system call succeeds and is told, and a crash stays the host's. */
static void watch_with_defaults(void)
{
	int ends[2];
	uint8_t *memory = map_pages(16);
	memwatch *watcher = open_default();
	add_region(watcher, memory, 16 * PAGE, "memory");
	poke(memory + 5 * PAGE, 7);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->changed_bytes, 1);
	memwatch_event_unref(event);
	read_into(&ends, memory, 15 * PAGE);
	CHECK_OP(newest(watcher), >, 1);
	check_no_handler();
	memwatch_close(watcher);
}

/* The defaults poll, and the note says why in these words. */
static void check_polled(const char *why)
{
	memwatch *watcher = open_default();
	struct memwatch_stats stats = stats_of(watcher);
	CHECK_TEXT(stats.backend, "poll");
	if (strncmp(stats.attribution_note, "memory is polled: ", 18) != 0 || !strstr(stats.attribution_note, why))
		FAIL("the note is \"%s\"", stats.attribution_note);
	memwatch_close(watcher);
}

TEST(nothing_is_left_of_a_look_at_what_works)
{
	struct memwatch_backend_info infos[N_BACKENDS];
	check_no_handler();
	OK(memwatch_backend_list(NULL, infos, N_BACKENDS));
	check_no_handler();
	CHECK_TEXT(infos[2].name, "mprotect");
	CHECK(infos[2].usable && strstr(infos[2].note, "EFAULT"));
	watch_with_defaults();
}

/* A root daemon that gives up its rights: the kernel no longer shows it its own page map. */
TEST(after_setuid_memory_is_polled_and_the_note_says_the_cure)
{
	if (getuid() != 0)
		SKIP("needs root");
	CHECK(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
	check_polled("prctl(PR_SET_DUMPABLE, 1)");
	watch_with_defaults();
	CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
	memwatch *watcher = open_default();
	CHECK(!strstr(stats_of(watcher).attribution_note, "DUMPABLE"));
	memwatch_close(watcher);
}

TEST(without_descriptors_memory_is_polled_and_the_note_says_the_cure)
{
	struct rlimit limit;
	CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	int next = dup(0);
	close(next);
	limit.rlim_cur = (rlim_t)next;
	CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	check_polled("ulimit -n");
	limit.rlim_cur = limit.rlim_max;
	CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	watch_with_defaults();
}

/* The device is the other door, which a seccomp profile does not see. */
static void in_a_container(uint32_t answer)
{
	bool device = access("/dev/userfaultfd", R_OK | W_OK) == 0;
	memwatch *watcher = open_default();
	bool able = strcmp(stats_of(watcher).backend, "uffd") == 0; /* this kernel, without the filter */
	memwatch_close(watcher);
	FILTER(container_denies, answer);
	watcher = open_default();
	CHECK_TEXT(stats_of(watcher).backend, able && device ? "uffd" : "poll");
	memwatch_close(watcher);
	if (able && !device)
		check_polled("docker run --device /dev/userfaultfd");
	watch_with_defaults();
}

TEST(a_container_of_docker)
{
	in_a_container(SECCOMP_RET_ERRNO | EPERM);
}

TEST(a_container_of_podman)
{
	in_a_container(SECCOMP_RET_ERRNO | ENOSYS);
}

TEST(a_service_whose_filter_kills)
{
	in_a_container(SECCOMP_RET_KILL_PROCESS);
}

TEST(a_filter_that_kills_for_all_that_can_be_done_without)
{
	FILTER(strict_denies, SECCOMP_RET_KILL_PROCESS);
	watch_with_defaults();
}

TEST(a_filter_that_kills_the_thread)
{
	FILTER(strict_denies, SECCOMP_RET_KILL_THREAD);
	watch_with_defaults();
}

TEST(a_filter_that_answers_eperm)
{
	FILTER(strict_denies, SECCOMP_RET_ERRNO | EPERM);
	watch_with_defaults();
}

TEST(a_filter_that_answers_enosys)
{
	FILTER(strict_denies, SECCOMP_RET_ERRNO | ENOSYS);
	watch_with_defaults();
}

TEST(a_filter_for_the_ioctl_kills)
{
	static const int calls[] = { SYS_ioctl };
	FILTER(calls, SECCOMP_RET_KILL_PROCESS);
	watch_with_defaults();
}

static volatile sig_atomic_t n_sigsys;

static void on_sigsys(int signal)
{
	(void)signal;
	n_sigsys++;
}

/* The child in which calls are tried shares no memory with the host, and runs none of its handlers. */
TEST(a_filter_that_traps_calls_no_handler_of_the_host)
{
	signal(SIGSYS, on_sigsys);
	FILTER(strict_denies, SECCOMP_RET_TRAP);
	watch_with_defaults();
	CHECK_EQ(n_sigsys, 0);
}

/* Addresses that only machines with a larger address space have. */
TEST(no_page_beyond_the_addresses_is_kept)
{
	static struct page_set set;
	CHECK_EQ(page_set_add(&set, (struct span){ ADDRESS_END - PAGE_BYTES, ADDRESS_END }), 0);
	CHECK_EQ(page_set_add(&set, (struct span){ ADDRESS_END, ADDRESS_END + PAGE_BYTES }), -ERANGE);
	CHECK_EQ(page_set_reserve(&set, (struct span){ ADDRESS_END - PAGE_BYTES, ADDRESS_END * 2 }), -ERANGE);
	CHECK(page_set_has(&set, ADDRESS_END - 1));
	CHECK(!page_set_has(&set, ADDRESS_END));
	CHECK_EQ(set.n_pages, 1);
}

/* The host waits for children of its own: it must not meet ours. */
TEST(the_child_that_tries_is_not_the_hosts)
{
	FILTER(container_denies, SECCOMP_RET_KILL_PROCESS);
	watch_with_defaults();
	CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}
