/*
 * first_write.c -- the first write to a watched page, beside the bare mechanisms that it stands on: userfaultfd WP_ASYNC
 * alone, with a perf event that signals every fault, and with the filter that drops foreign ones in the kernel (root).
 */
#include "watching.h"

#include <fcntl.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* Newer than Debian 12's headers; the values are the kernel's. */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

enum { N_PAGES = 4096, ROUNDS = 11 };

static uint8_t *memory;
static volatile long n_signals;

static void on_trap(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	n_signals += (uintptr_t)info->si_addr - (uintptr_t)memory < (uintptr_t)N_PAGES * PAGE;
}

/* Every page once, with a value that it does not have. */
static double touch_all(uint8_t value)
{
	double start = thread_ns();
	for (size_t i = 0; i < N_PAGES; i++)
		poke(memory + i * PAGE, value);
	return (thread_ns() - start) / N_PAGES;
}

static void open_event(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof attr,
		.config = PERF_COUNT_SW_PAGE_FAULTS,
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_ADDR | PERF_SAMPLE_IP,
		.exclude_kernel = 1,
		.exclude_hv = 1,
		.sigtrap = 1,
		.remove_on_exec = 1,
		.inherit = 1,
		.inherit_thread = 1,
	};
	struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK };
	sigaction(SIGTRAP, &action, NULL);
	if (syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC) < 0)
		die("perf_event_open");
}

static double bare(void *arg)
{
	const bool *with_signals = arg;
	double rounds[ROUNDS];
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					      UFFD_FEATURE_WP_UNPOPULATED };
	struct uffdio_register all = { .range = { (uintptr_t)memory, (uint64_t)N_PAGES * PAGE },
				       .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect arm = { .range = all.range, .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &all))
		die("userfaultfd");
	if (*with_signals)
		open_event();
	for (int i = 0; i < ROUNDS; i++) {
		if (ioctl(fd, UFFDIO_WRITEPROTECT, &arm))
			die("UFFDIO_WRITEPROTECT");
		rounds[i] = touch_all((uint8_t)(i + 1));
	}
	if (*with_signals && n_signals != (long)N_PAGES * ROUNDS)
		die("signals are missing");
	return median(rounds, ROUNDS);
}

struct watched {
	const char *backend;
	double budget;
};

static double watched(void *arg)
{
	const struct watched *watched = arg;
	double rounds[ROUNDS];
	memwatch *watcher = open_watcher(watched->backend, watched->budget);
	add_region(watcher, memory, (size_t)N_PAGES * PAGE);
	for (int i = 0; i < ROUNDS; i++) {
		rounds[i] = touch_all((uint8_t)(i + 1));
		OK(memwatch_flush(watcher, 10000));
	}
	memwatch_close(watcher);
	return median(rounds, ROUNDS);
}

static double unwatched(void *arg)
{
	double rounds[ROUNDS];
	(void)arg;
	for (int i = 0; i < ROUNDS; i++)
		rounds[i] = touch_all((uint8_t)(i + 1));
	return median(rounds, ROUNDS);
}

/* The mechanisms take turns, so that a slow minute of the machine is everybody's. */
int main(void)
{
	enum { TURNS = 7, WAYS = 6 };
	static const char *const names[WAYS] = { "unwatched",
						 "bare.wp_async",
						 "bare.wp_async_sigtrap",
						 "memwatch.attribution_off",
						 "memwatch.attribution_on",
						 "memwatch.mprotect" };
	double results[WAYS][TURNS];
	bool without = false, with = true;
	struct watched off = { "uffd", 0 }, on = { "uffd", 1 }, mprotected = { "mprotect", 1 };
	memory = map_small_pages((size_t)N_PAGES * PAGE);
	memset(memory, 1, (size_t)N_PAGES * PAGE);
	for (int i = 0; i < TURNS; i++) {
		results[0][i] = in_child(unwatched, NULL);
		results[1][i] = in_child(bare, &without);
		results[2][i] = in_child(bare, &with);
		results[3][i] = in_child(watched, &off);
		results[4][i] = in_child(watched, &on);
		results[5][i] = in_child(watched, &mprotected);
	}
	for (int i = 0; i < WAYS; i++)
		report(names[i], median(results[i], TURNS), "ns");
	return 0;
}
