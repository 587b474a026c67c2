/*
 * test_machines.c -- machines that refuse: under each seccomp filter a watcher opens, a change is told, the host's calls succeed and
 * the host lives.
 */
#include "filters.h"
#include "watching.h"

#include "base/pages.h"

/* Opens with the defaults and sees a change. */
static void watch_with_defaults(void)
{
	struct memwatch_options options;
	memwatch *watcher = NULL;
	memwatch_options_init(&options);
	uint8_t *memory = map_pages(16);
	OK(memwatch_open(&options, &watcher));
	add_region(watcher, memory, 16 * PAGE, "memory");
	poke(memory + 5 * PAGE, 7);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->changed_bytes, 1);
	memwatch_event_unref(event);
	memwatch_close(watcher);
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
