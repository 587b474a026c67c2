/*
 * first_write.c -- the first write to a watched page, beside the bare mechanisms that it stands on: userfaultfd
 * WP_ASYNC alone, with a perf event that signals every fault, and with the filter that drops foreign ones in the kernel
 * (root).
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

enum { N_PAGES = 4096, ROUNDS = 40 };

static uint8_t *memory;
static volatile long n_signals;
static int uffd;
static memwatch *watcher;

static void on_trap(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	n_signals += (uintptr_t)info->si_addr - (uintptr_t)memory < (uintptr_t)N_PAGES * PAGE;
}

/* One way to notice a write. All of it runs in a child of its own. */
struct way {
	const char *name;
	void (*begin)(const struct way *way);
	void (*before)(const struct way *way); /* each round: arms the pages */
	void (*after)(void);
	bool with_signals;
	const char *backend;
	double budget;
};

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

static void begin_bare(const struct way *way)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					      UFFD_FEATURE_WP_UNPOPULATED };
	struct uffdio_register all = { .range = { (uintptr_t)memory, (uint64_t)N_PAGES * PAGE },
				       .mode = UFFDIO_REGISTER_MODE_WP };
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &all))
		die("userfaultfd");
	if (way->with_signals)
		open_event();
}

static void arm_bare(const struct way *way)
{
	struct uffdio_writeprotect arm = { .range = { (uintptr_t)memory, (uint64_t)N_PAGES * PAGE },
					   .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	if (ioctl(uffd, UFFDIO_WRITEPROTECT, &arm))
		die("UFFDIO_WRITEPROTECT");
	if (way->with_signals && n_signals % N_PAGES != 0)
		die("signals are missing");
}

static void begin_watched(const struct way *way)
{
	watcher = open_watcher(way->backend, way->budget);
	add_region(watcher, memory, (size_t)N_PAGES * PAGE);
}

static void flush(void)
{
	OK(memwatch_flush(watcher, 10000));
}

static const struct way ways[] = {
	{ .name = "unwatched" },
	{ .name = "bare.wp_async", .begin = begin_bare, .before = arm_bare },
	{ .name = "bare.wp_async_sigtrap", .begin = begin_bare, .before = arm_bare, .with_signals = true },
	{ .name = "memwatch.attribution_off", .begin = begin_watched, .after = flush, .backend = "uffd" },
	{ .name = "memwatch.attribution_on", .begin = begin_watched, .after = flush, .backend = "uffd", .budget = 1 },
	{ .name = "memwatch.mprotect", .begin = begin_watched, .after = flush, .backend = "mprotect", .budget = 1 },
};
enum { WAYS = sizeof ways / sizeof *ways };

/* A child and the two pipes by which it is told to do a round and tells what that took. */
struct turn {
	int go, done;
};

struct cost {
	double cpu_ns, wall_ns;
};

/* Every page once, with a value that it does not have. */
static struct cost touch_all(uint8_t value)
{
	double cpu_ns = thread_ns(), wall_ns = now_ns();
	for (size_t i = 0; i < N_PAGES; i++)
		poke(memory + i * PAGE, value);
	return (struct cost){ (thread_ns() - cpu_ns) / N_PAGES, (now_ns() - wall_ns) / N_PAGES };
}

static void run(const struct way *way, int go, int done)
{
	char byte;
	memory = map_small_pages((size_t)N_PAGES * PAGE);
	memset(memory, 0xff, (size_t)N_PAGES * PAGE);
	if (way->begin)
		way->begin(way);
	for (int i = 0; read(go, &byte, 1) == 1; i++) {
		if (way->before)
			way->before(way);
		struct cost cost = touch_all((uint8_t)(i + 1));
		if (way->after)
			way->after();
		if (write(done, &cost, sizeof cost) != sizeof cost)
			die("write");
	}
	_exit(0);
}

static struct turn start(const struct way *way)
{
	int go[2], done[2];
	if (pipe2(go, O_CLOEXEC) < 0 || pipe2(done, O_CLOEXEC) < 0)
		die("pipe");
	pid_t child = fork();
	if (child < 0)
		die("fork");
	if (child == 0) {
		close(go[1]);
		run(way, go[0], done[1]);
	}
	close(go[0]);
	close(done[1]);
	return (struct turn){ go[1], done[0] };
}

/* The ways take turns, round by round, so that a slow moment of the machine is everybody's. */
int main(void)
{
	static double cpu_ns[WAYS][ROUNDS], wall_ns[WAYS][ROUNDS];
	struct turn turns[WAYS];
	for (int i = 0; i < WAYS; i++)
		turns[i] = start(&ways[i]);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < WAYS; i++) {
			struct cost cost = { __builtin_nan(""), __builtin_nan("") };
			if (write(turns[i].go, "", 1) != 1 || read(turns[i].done, &cost, sizeof cost) != sizeof cost)
				fprintf(stderr, "%s failed\n", ways[i].name);
			cpu_ns[i][round] = cost.cpu_ns;
			wall_ns[i][round] = cost.wall_ns;
		}
	}
	for (int i = 0; i < WAYS; i++)
		report(ways[i].name, median(cpu_ns[i], ROUNDS), "ns");
	for (int i = 0; i < WAYS; i++) {
		char name[64];
		snprintf(name, sizeof name, "%s.wall", ways[i].name);
		report(name, median(wall_ns[i], ROUNDS), "ns");
	}
	return 0;
}
