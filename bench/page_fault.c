/*
 * page_fault.c -- an ordinary page fault, on memory that nobody watches, while other memory is watched.
 */
#include "watching.h"

#include <pthread.h>
#include <stdatomic.h>

enum { ROUNDS = 3, N_PAGES = 20000 };

static double faults_ns(void)
{
	double rounds[ROUNDS];
	for (int k = 0; k < ROUNDS; k++) {
		uint8_t *memory = map_small_pages((size_t)N_PAGES * PAGE);
		double start = thread_ns();
		for (size_t i = 0; i < N_PAGES; i++)
			poke(memory + i * PAGE, 1);
		rounds[k] = (thread_ns() - start) / N_PAGES;
		munmap(memory, (size_t)N_PAGES * PAGE);
	}
	return median(rounds, ROUNDS);
}

static double unwatched(void *arg)
{
	(void)arg;
	return faults_ns();
}

struct setting {
	double budget;
	size_t n_pages; /* watched */
	bool come_and_go;
};

struct visitor {
	memwatch *watcher;
	uint8_t *memory;
	size_t n_pages;
	_Atomic bool stop;
};

/* Watches pages all over the memory and lets them go again, without a pause. */
static void *come_and_go(void *arg)
{
	struct visitor *visitor = arg;
	for (size_t i = 0; !atomic_load(&visitor->stop); i++) {
		uint64_t id = add_region(visitor->watcher, visitor->memory + i * 769 % visitor->n_pages * PAGE, PAGE);
		OK(memwatch_region_remove(visitor->watcher, id));
	}
	return NULL;
}

static double watched(void *arg)
{
	struct setting *setting = arg;
	uint8_t *memory = map_small_pages(setting->n_pages * PAGE);
	memwatch *watcher = open_watcher("uffd", setting->budget);
	struct visitor visitor = { watcher, memory, setting->n_pages, false };
	pthread_t thread;
	if (!setting->come_and_go)
		add_region(watcher, memory, setting->n_pages * PAGE);
	else if (pthread_create(&thread, NULL, come_and_go, &visitor))
		die("pthread_create");
	double result = faults_ns();
	if (setting->come_and_go) {
		atomic_store(&visitor.stop, true);
		pthread_join(thread, NULL);
	}
	memwatch_close(watcher);
	return result;
}

/* The ways take turns, so that a slow minute of the machine is everybody's. */
int main(void)
{
	enum { TURNS = 9, WAYS = 7 };
	static const char *const names[WAYS] = { "unwatched",
						 "memwatch.attribution_off",
						 "memwatch.default_budget.1_page",
						 "memwatch.no_budget.1_page",
						 "memwatch.no_budget.65536_pages",
						 "memwatch.no_budget.come_and_go",
						 "unwatched.again" };
	struct setting settings[WAYS] = { { 0, 0, false },     { 0, 1, false },    { 0.01, 1, false }, { 1, 1, false },
					  { 1, 65536, false }, { 1, 65536, true }, { 0, 0, false } };
	double results[WAYS][TURNS];
	for (int turn = 0; turn < TURNS; turn++)
		for (int way = 0; way < WAYS; way++)
			results[way][turn] = in_child(settings[way].n_pages ? watched : unwatched, &settings[way]);
	for (int way = 0; way < WAYS; way++)
		report(names[way], median(results[way], TURNS), "ns");
	return 0;
}
