/*
 * page_fault.c -- an ordinary page fault, on memory that nobody watches, while other memory is watched.
 */
#include "watching.h"

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
};

static double watched(void *arg)
{
	struct setting *setting = arg;
	uint8_t *memory = map_small_pages(setting->n_pages * PAGE);
	memwatch *watcher = open_watcher("uffd", setting->budget);
	add_region(watcher, memory, setting->n_pages * PAGE);
	double result = faults_ns();
	memwatch_close(watcher);
	return result;
}

/* The ways take turns, so that a slow minute of the machine is everybody's. */
int main(void)
{
	enum { TURNS = 5, WAYS = 5 };
	static const char *const names[WAYS] = { "unwatched", "memwatch.attribution_off",
						 "memwatch.default_budget.1_page", "memwatch.no_budget.1_page",
						 "memwatch.no_budget.65536_pages" };
	struct setting settings[WAYS] = { { 0, 0 }, { 0, 1 }, { 0.01, 1 }, { 1, 1 }, { 1, 65536 } };
	double results[WAYS][TURNS];
	for (int turn = 0; turn < TURNS; turn++)
		for (int way = 0; way < WAYS; way++)
			results[way][turn] = in_child(way ? watched : unwatched, &settings[way]);
	for (int way = 0; way < WAYS; way++)
		report(names[way], median(results[way], TURNS), "ns");
	return 0;
}
