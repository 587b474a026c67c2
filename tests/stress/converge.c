/*
 * converge.c -- a soak: writers write, regions come and go, readers read, children fork, for as many seconds as
 * the argument says (10). Every ten seconds all writers pause: then the shadow must be the memory and the
 * ledger must balance. Memory must not grow from the first pause to the last beyond what the budgets allow.
 */
#include "stress.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 512, WRITERS = 3, SLACK_BYTES = 16 << 20 };

static uint8_t *memory;
static memwatch *watcher;
static _Atomic bool stop, pause_now;
static _Atomic int n_paused;
static _Atomic uint64_t n_events, n_writes;

static void *write_words(void *arg)
{
	uint64_t state = (uintptr_t)arg + 1;
	while (!atomic_load(&stop)) {
		if (atomic_load(&pause_now)) {
			atomic_fetch_add(&n_paused, 1);
			while (atomic_load(&pause_now) && !atomic_load(&stop))
				usleep(1000);
			atomic_fetch_sub(&n_paused, 1);
		}
		uint64_t word = next_random(&state) % (PAGES * PAGE / 8);
		__atomic_store_n((uint64_t *)(void *)memory + word, state, __ATOMIC_RELAXED);
		if (atomic_fetch_add(&n_writes, 1) % 4096 == 0)
			usleep((unsigned)(next_random(&state) % 2000));
	}
	return NULL;
}

static void *change_regions(void *arg)
{
	uint64_t state = 77, ids[16] = { 0 };
	(void)arg;
	for (unsigned i = 0; !atomic_load(&stop); i++) {
		uint64_t offset = next_random(&state) % ((PAGES - 2) * PAGE),
			 size = 1 + next_random(&state) % (2 * PAGE);
		if (ids[i % 16])
			CHECK(memwatch_region_remove(watcher, ids[i % 16]) == 0);
		CHECK(memwatch_region_add(watcher, memory + offset, size, NULL, &ids[i % 16]) == 0);
		usleep(2000);
	}
	return NULL;
}

static void *read_events(void *arg)
{
	const struct memwatch_event *events[64];
	struct memwatch_cursor cursor = { .next = 0 };
	static uint8_t buffer[PAGES * PAGE];
	(void)arg;
	while (!atomic_load(&stop)) {
		uint64_t before = cursor.next;
		int n = memwatch_events_read(watcher, before, events, 64, &cursor);
		CHECK(n >= 0);
		for (int i = 0; i < n; i++) {
			if (*events[i]->storage_key_new && i % 16 == 0)
				memwatch_load(watcher, events[i]->storage_key_new, buffer, sizeof buffer);
			memwatch_event_unref(events[i]);
		}
		atomic_fetch_add(&n_events, (uint64_t)n);
		memwatch_events_wait(watcher, cursor.next, 20);
	}
	return NULL;
}

static void *fork_children(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		int status;
		pid_t child = fork();
		if (child == 0) {
			for (size_t i = 0; i < PAGES; i++)
				memory[i * PAGE] ^= 1;
			_exit(0);
		}
		CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
		usleep(200 * 1000);
	}
	return NULL;
}

/* All writers rest: the shadow is the memory, the ledger balances. Returns the bytes that the library uses. */
static uint64_t check_rest(uint64_t whole)
{
	static uint8_t shadow[PAGES * PAGE];
	struct memwatch_region_info info;
	struct memwatch_stats stats;
	atomic_store(&pause_now, true);
	while (atomic_load(&n_paused) < WRITERS)
		usleep(1000);
	CHECK(memwatch_flush(watcher, 60000) == 0);
	CHECK(memwatch_region_read(watcher, whole, shadow, sizeof shadow) == sizeof shadow);
	CHECK(memcmp(shadow, memory, sizeof shadow) == 0);
	CHECK(memwatch_region_info_get(watcher, whole, &info) == 0);
	CHECK(memwatch_stats_get(watcher, &stats) == 0);
	check_ledger(&info.ledger);
	check_ledger(&stats.ledger);
	atomic_store(&pause_now, false);
	return stats.native_memory_bytes;
}

int main(int argc, char **argv)
{
	void *(*const tasks[])(void *) = { write_words,    write_words, write_words,
					   change_regions, read_events, fork_children };
	enum { TASKS = sizeof tasks / sizeof *tasks };
	struct memwatch_options options;
	pthread_t threads[TASKS];
	uint64_t whole, first_bytes = 0, bytes = 0;
	double end = now_s() + (argc > 1 ? atof(argv[1]) : 10);
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memwatch_options_init(&options);
	options.event_budget = 8 << 20;
	options.history_budget = 8 << 20;
	CHECK(memory != MAP_FAILED && memwatch_open(&options, &watcher) == 0);
	CHECK(memwatch_region_add(watcher, memory, PAGES * PAGE, NULL, &whole) == 0);
	for (uintptr_t i = 0; i < TASKS; i++)
		CHECK(pthread_create(&threads[i], NULL, tasks[i], (void *)i) == 0);
	for (int n_rests = 0; now_s() < end || n_rests < 3; n_rests++) {
		double left = end - now_s();
		usleep((unsigned)((left > 10 ? 10 : left > 1 ? left / 2 : 0.3) * 1e6));
		bytes = check_rest(whole);
		first_bytes = n_rests == 1 ? bytes : first_bytes;
	}
	atomic_store(&stop, true);
	for (int i = 0; i < TASKS; i++)
		pthread_join(threads[i], NULL);
	CHECK(bytes < first_bytes + SLACK_BYTES);
	printf("%llu writes, %llu events, %llu KiB of memory\n", (unsigned long long)n_writes,
	       (unsigned long long)n_events, (unsigned long long)bytes / 1024);
	memwatch_close(watcher);
	return 0;
}
