/*
 * test_load.c -- many writers, full rings, storms: nothing is lost in silence, and in the end the shadow is the memory.
 */
#include "filters.h"
#include "watching.h"

#include <dirent.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>

static memwatch *open_ring(const char *backend, uint32_t ring_capacity, double budget)
{
	struct memwatch_options options;
	memwatch_options_init(&options);
	options.backend = backend;
	options.ring_capacity = ring_capacity;
	options.attribution_budget = budget;
	return open_with(&options);
}

/* --- convergence ------------------------------------------------------------------------------------------------ */

enum { WRITERS = 4, PAGES = 64 };

struct load {
	uint8_t *memory;
	unsigned number;
	_Atomic bool *stop;
};

/* Each word has one writer, all pages have all writers. */
static void *write_words(void *arg)
{
	struct load *load = arg;
	_Atomic uint64_t *words = (_Atomic uint64_t *)(void *)load->memory;
	uint64_t state = load->number + 1, n_words = PAGES * PAGE / sizeof *words / WRITERS;
	while (!atomic_load_explicit(load->stop, memory_order_relaxed)) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		uint64_t word = (state >> 33) % n_words * WRITERS + load->number;
		atomic_store_explicit(&words[word], state, memory_order_relaxed);
	}
	return NULL;
}

BACKEND_TEST(the_last_event_is_what_memory_holds)
{
	static _Atomic bool stop;
	static uint8_t loaded[PAGES * PAGE];
	struct load loads[WRITERS];
	pthread_t threads[WRITERS];
	uint8_t *memory = map_pages(PAGES);
	memwatch *watcher = open_ring(backend, 65536, 0.01);
	uint64_t whole = add_region(watcher, memory, PAGES * PAGE, "whole");
	uint64_t part = add_region(watcher, memory + 1000, 64, "part");
	for (int round = 0; round < 3; round++) {
		atomic_store(&stop, false);
		for (unsigned i = 0; i < WRITERS; i++) {
			loads[i] = (struct load){ memory, i + 4 * (unsigned)round % 4, &stop };
			CHECK(pthread_create(&threads[i], NULL, write_words, &loads[i]) == 0);
		}
		let_run(watcher, 0.7, 0);
		atomic_store(&stop, true);
		for (int i = 0; i < WRITERS; i++)
			pthread_join(threads[i], NULL);
		flush(watcher);
		CHECK_EQ(memwatch_region_read(watcher, whole, loaded, sizeof loaded), sizeof loaded);
		CHECK(memcmp(loaded, memory, sizeof loaded) == 0);
		const struct memwatch_event *event = last_event(watcher, whole);
		CHECK(event);
		CHECK_EQ(memwatch_load(watcher, event->storage_key_new, loaded, sizeof loaded), sizeof loaded);
		CHECK(memcmp(loaded, memory, sizeof loaded) == 0);
		memwatch_event_unref(event);
		event = last_event(watcher, part);
		CHECK(event && memcmp(event->new_value, memory + 1000, 64) == 0);
		memwatch_event_unref(event);
		check_ledgers(watcher);
	}
	memwatch_close(watcher);
}

/* Each event's old value is the value before it: nothing lies between two events of a region. */
BACKEND_TEST(events_of_a_region_join_up)
{
	static _Atomic bool stop;
	const struct memwatch_event *events[64];
	struct memwatch_cursor cursor = { .next = 0 };
	struct load load = { .number = 0, .stop = &stop };
	uint8_t last[256];
	pthread_t thread;
	load.memory = map_pages(PAGES);
	memcpy(last, load.memory, sizeof last);
	memwatch *watcher = open_ring(backend, 65536, 0.01);
	add_region(watcher, load.memory, sizeof last, "a");
	CHECK(pthread_create(&thread, NULL, write_words, &load) == 0);
	uint64_t n_joined = 0;
	double end = harness_now_s() + of_load(1.5);
	while (n_joined < 20 || harness_now_s() < end) {
		CHECK(harness_now_s() < end + PATIENCE_MS / 1000.0);
		int n = memwatch_events_read(watcher, cursor.next, events, 64, &cursor);
		OK(n);
		CHECK_EQ(cursor.missed, 0);
		for (int i = 0; i < n; i++, n_joined++) {
			CHECK(memcmp(events[i]->old_value, last, sizeof last) == 0);
			CHECK(memcmp(events[i]->new_value, last, sizeof last) != 0);
			memcpy(last, events[i]->new_value, sizeof last);
			memwatch_event_unref(events[i]);
		}
		if (!n)
			memwatch_events_wait(watcher, cursor.next, 100);
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	memwatch_close(watcher);
}

/* --- the ring --------------------------------------------------------------------------------------------------- */

/* A burst over many more pages than the ring has slots: every change arrives, lost notes are counted. */
static void a_full_ring_loses_notes_not_changes(const char *backend)
{
	enum { N = 5000 };
	static uint64_t ids[N];
	uint8_t *memory = map_pages(N);
	memset(memory, 1, (size_t)N * PAGE);
	memwatch *watcher = open_ring(backend, 16, 1);
	for (int i = 0; i < N; i++)
		ids[i] = add_region(watcher, memory + (size_t)i * PAGE + 8, 8, NULL);
	uint64_t dropped = 0;
	for (int round = 0; round < 5; round++) {
		uint64_t since = newest(watcher);
		for (int i = 0; i < N; i++)
			poke(memory + (size_t)i * PAGE + 10, (uint8_t)(round + 2));
		CHECK_EQ(newest(watcher), since + N);
		dropped = stats_of(watcher).ring.dropped;
	}
	struct memwatch_stats stats = stats_of(watcher);
	CHECK_EQ(stats.ring.capacity, 16);
	CHECK_OP(stats.ring.high_water, <=, 16);
	if (stats.attribution_available || strcmp(backend, "mprotect") == 0) {
		CHECK_OP(dropped, >, 0);
		CHECK_EQ(stats.dropped_by[MEMWATCH_DROP_RING_FULL], dropped);
		CHECK_EQ(stats.faults, stats.faults);
		CHECK_OP(stats.reason_by[MEMWATCH_REASON_RING_FULL], >, 0);
		CHECK_OP(stats.reason_by[MEMWATCH_REASON_RING_FULL] + stats.attribution_by[MEMWATCH_ATTRIBUTION_EXACT],
			 >=, 5 * N * 9 / 10);
	}
	CHECK_EQ(stats.ledger.delivered, 5 * N);
	CHECK_EQ(stats.ledger.dropped, 0);
	for (int i = 0; i < N; i++)
		CHECK_EQ(info_of(watcher, ids[i]).ledger.delivered, 5);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(a_full_ring_loses_notes_not_changes_uffd)
{
	a_full_ring_loses_notes_not_changes("uffd");
}

TEST(a_full_ring_loses_notes_not_changes_mprotect)
{
	a_full_ring_loses_notes_not_changes("mprotect");
}

/* --- storms ----------------------------------------------------------------------------------------------------- */

/* Faults on unwatched memory: the watched writes are all detected, and authors come back when the storm ends. */
TEST(attribution_comes_back_after_a_storm)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_ring("uffd", 65536, 0.01);
	uint64_t id = add_region(watcher, memory, 64, "a");
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	for (uint64_t i = 0; i < 50; i++) {
		uint8_t *other = map_pages(512);
		madvise(other, 512 * PAGE, MADV_NOHUGEPAGE);
		for (size_t k = 0; k < 512; k++)
			poke(other + k * PAGE, 1);
		munmap(other, 512 * PAGE);
		poke(memory, (uint8_t)(i + 1));
		const struct memwatch_event *event = only_event(watcher, i);
		CHECK(event->where.attribution == MEMWATCH_ATTRIBUTION_EXACT ||
		      event->where.reason == MEMWATCH_REASON_THROTTLED ||
		      (UNDER_TSAN && event->where.reason == MEMWATCH_REASON_UNKNOWN)); /* which is slow to store */
		memwatch_event_unref(event);
	}
	double end = harness_now_s() + PATIENCE_MS / 1000.0;
	for (bool exact = false; !exact;) {
		CHECK(harness_now_s() < end);
		poke(memory, (uint8_t)(memory[0] + 1));
		const struct memwatch_event *event = last_event(watcher, id);
		exact = event->where.attribution == MEMWATCH_ATTRIBUTION_EXACT;
		memwatch_event_unref(event);
	}
	check_ledgers(watcher);
	memwatch_close(watcher);
}

/* --- everything at once: for the thread sanitizer --------------------------------------------------------------- */

struct all {
	memwatch *watcher;
	uint8_t *memory;
	_Atomic bool stop;
};

static void *do_writes(void *arg)
{
	struct all *all = arg;
	for (unsigned i = 0; !atomic_load(&all->stop); i++)
		__atomic_store_n(&all->memory[i * 97 % (8 * PAGE)], (uint8_t)(i >> 8), __ATOMIC_RELAXED);
	return NULL;
}

static void *do_regions(void *arg)
{
	struct all *all = arg;
	while (!atomic_load(&all->stop)) {
		uint64_t id = add_region(all->watcher, all->memory + 100, 5000, NULL);
		info_of(all->watcher, id);
		OK(memwatch_region_remove(all->watcher, id));
	}
	return NULL;
}

static void *do_reads(void *arg)
{
	struct all *all = arg;
	const struct memwatch_event *events[32];
	struct memwatch_cursor cursor = { .next = 0 };
	struct memwatch_region_info infos[8];
	uint8_t buffer[PAGE];
	while (!atomic_load(&all->stop)) {
		int n = memwatch_events_read(all->watcher, cursor.next, events, 32, &cursor);
		for (int i = 0; i < n; i++) {
			if (*events[i]->storage_key_old)
				memwatch_load(all->watcher, events[i]->storage_key_old, buffer, sizeof buffer);
			memwatch_event_unref(events[i]);
		}
		uint64_t at = 0;
		while (memwatch_region_list(all->watcher, &at, infos, 8) > 0)
			;
		stats_of(all->watcher);
		memwatch_flush(all->watcher, 10);
		memwatch_events_wait(all->watcher, cursor.next, 1);
	}
	return NULL;
}

static void count(const struct memwatch_event *event, void *arg)
{
	(void)event;
	atomic_fetch_add((_Atomic uint64_t *)arg, 1);
}

static void *do_watchers(void *arg)
{
	struct all *all = arg;
	static _Atomic uint64_t n_calls;
	while (!atomic_load(&all->stop)) {
		memwatch_sink *sink;
		const struct memwatch_event *events[8];
		memwatch *watcher;
		OK(memwatch_open(NULL, &watcher));
		add_region(watcher, all->memory, 8 * PAGE, "same");
		OK(memwatch_callback_set(watcher, count, (void *)&n_calls));
		OK(memwatch_sink_open(watcher, "sink", &sink));
		int n = memwatch_sink_read(sink, events, 8, 50);
		for (int i = 0; i < n; i++)
			memwatch_event_unref(events[i]);
		memwatch_sink_close(sink);
		memwatch_close(watcher);
	}
	return NULL;
}

TEST(everything_at_once)
{
	static void *(*const tasks[])(void *) = { do_writes, do_writes, do_regions, do_reads, do_reads, do_watchers };
	enum { N = sizeof tasks / sizeof *tasks };
	struct all all = { .memory = map_pages(8) };
	pthread_t threads[N];
	OK(memwatch_open(NULL, &all.watcher));
	add_region(all.watcher, all.memory, 8 * PAGE, "large");
	add_region(all.watcher, all.memory + 10, 20, "small");
	for (int i = 0; i < N; i++)
		CHECK(pthread_create(&threads[i], NULL, tasks[i], &all) == 0);
	let_run(all.watcher, 3, 10);
	atomic_store(&all.stop, true);
	for (int i = 0; i < N; i++)
		pthread_join(threads[i], NULL);
	check_ledgers(all.watcher);
	CHECK_OP(newest(all.watcher), >, 10);
	memwatch_close(all.watcher);
}

/* --- idle ------------------------------------------------------------------------------------------------------- */

static double cpu_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A thousand regions over a gigabyte, nobody writes: under 0.5 % of a core; here with generous room. */
TEST(idle_is_nearly_free)
{
	size_t size = (size_t)1 << 30;
	uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(memory != MAP_FAILED);
	memwatch *watcher = open_ring("uffd", 65536, 0.01);
	for (size_t i = 0; i < 1000; i++)
		if (memwatch_region_add(watcher, memory + size / 1000 * i, size / 1000, NULL, NULL) < 0)
			SKIP(memwatch_error());
	flush(watcher);
	WAIT_FOR(stats_of(watcher).sweep_ms >= 200);
	double start = cpu_s(), wall = harness_now_s();
	usleep((useconds_t)(of_load(8) * 1e6));
	double share = (cpu_s() - start) / (harness_now_s() - wall);
	fprintf(stderr, "idle: %.3f %% of a core, sweep every %u ms\n", share * 100, stats_of(watcher).sweep_ms);
	CHECK(share < 0.02);
	memwatch_close(watcher);
}

enum { VARIABLES = 50, CALLS_A_SECOND = 20, THREADS_MAX = 8 };

/* The number of the tracepoint that every system call passes; -1 where it cannot be had. */
static long system_calls_tracepoint(void)
{
	long number = -1;
	FILE *file = fopen("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id", "re");
	if (!file)
		return -1;
	if (fscanf(file, "%ld", &number) != 1)
		number = -1;
	fclose(file);
	return number;
}

/* A counter of its system calls for each thread but this one. How many there are; none without the right. */
static int count_others(int *counters)
{
	struct perf_event_attr attributes = { .size = sizeof attributes, .type = PERF_TYPE_TRACEPOINT };
	long number = system_calls_tracepoint();
	struct dirent *entry;
	int n = 0;
	DIR *tasks = opendir("/proc/self/task");
	CHECK(tasks);
	attributes.config = (uint64_t)number;
	while (number >= 0 && n < THREADS_MAX && (entry = readdir(tasks))) {
		int thread_id = atoi(entry->d_name);
		int fd = thread_id > 0 && thread_id != gettid() ? (int)syscall(SYS_perf_event_open, &attributes,
									       thread_id, -1, -1, PERF_FLAG_FD_CLOEXEC)
								: -1;
		if (fd >= 0)
			counters[n++] = fd;
	}
	closedir(tasks);
	return n;
}

static uint64_t sum_of(const int *counters, int n)
{
	uint64_t sum = 0, count;
	for (int i = 0; i < n; i++) {
		CHECK_EQ(read(counters[i], &count, sizeof count), sizeof count);
		sum += count;
	}
	return sum;
}

struct resting {
	const char *backend;
	const int *denied; /* system calls that a filter refuses to the watcher's threads */
	unsigned n_denied;
	memwatch *watcher;
};

static uint64_t at_rest[VARIABLES][PAGE / sizeof(uint64_t) / 8];

/* On a thread of its own, whose filter those that it begins have, too. */
static void *watch_filtered(void *arg)
{
	struct resting *resting = arg;
	char name[32];
	if (resting->n_denied)
		filter_calls(resting->denied, resting->n_denied, SECCOMP_RET_ERRNO | EPERM, 0);
	resting->watcher = open_ring(resting->backend, 65536, 0.01);
	for (int i = 0; i < VARIABLES; i++) {
		snprintf(name, sizeof name, "variable-%d", i);
		add_region(resting->watcher, at_rest[i], sizeof at_rest[i][0], name);
		at_rest[i][0]++;
	}
	return NULL;
}

/* Between the beginnings of two sweeps, when nothing has been written for a while. */
static void count_calls_at_rest(struct resting resting)
{
	int counters[THREADS_MAX];
	pthread_t thread;
	SKIP_UNDER(UNDER_ASAN || UNDER_TSAN); /* their threads make calls, too */
	CHECK(pthread_create(&thread, NULL, watch_filtered, &resting) == 0);
	pthread_join(thread, NULL);
	memwatch *watcher = resting.watcher;
	flush(watcher);
	int n = count_others(counters);
	if (!n)
		SKIP("system calls are counted by who may use tracepoints");
	WAIT_FOR(stats_of(watcher).sweep_ms >= 2000);
	uint64_t passes = stats_of(watcher).passes, calls = sum_of(counters, n);
	double start = harness_now_s();
	WAIT_FOR(stats_of(watcher).passes >= passes + 2);
	double rate = (double)(sum_of(counters, n) - calls) / (harness_now_s() - start);
	fprintf(stderr, "at rest: %.1f system calls a second\n", rate);
	CHECK_OP(rate, <, CALLS_A_SECOND);

	at_rest[0][0]++; /* and what comes then is told as soon as ever */
	WAIT_FOR(newest_told(watcher) > VARIABLES);
	WAIT_FOR(stats_of(watcher).sweep_ms < 2000);
	OK(memwatch_close(watcher));
}

TEST(at_rest_there_are_few_system_calls)
{
	count_calls_at_rest((struct resting){ .backend = "uffd" });
}

TEST(at_rest_there_are_few_system_calls_without_bpf)
{
	static const int denied[] = { SYS_bpf };
	count_calls_at_rest((struct resting){ .backend = "uffd", .denied = denied, .n_denied = 1 });
}

TEST(at_rest_there_are_few_system_calls_without_perf_events)
{
	static const int denied[] = { SYS_bpf, SYS_perf_event_open };
	count_calls_at_rest((struct resting){ .backend = "uffd", .denied = denied, .n_denied = 2 });
}

TEST(at_rest_there_are_few_system_calls_with_mprotect)
{
	count_calls_at_rest((struct resting){ .backend = "mprotect" });
}
