/*
 * page_fault.c -- an ordinary page fault, on memory that nobody watches, while other memory is watched.
 */
#include "watching.h"

enum { ROUNDS = 9, N_PAGES = 20000 };

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

int main(void)
{
	static const struct {
		const char *name;
		struct setting setting;
	} ways[] = {
		{ "memwatch.attribution_off", { .budget = 0, .n_pages = 1 } },
		{ "memwatch.default_budget.1_page", { .budget = 0.01, .n_pages = 1 } },
		{ "memwatch.no_budget.1_page", { .budget = 1, .n_pages = 1 } },
		{ "memwatch.no_budget.65536_pages", { .budget = 1, .n_pages = 65536 } },
	};
	report("unwatched", in_child(unwatched, NULL), "ns");
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		struct setting setting = ways[i].setting;
		report(ways[i].name, in_child(watched, &setting), "ns");
	}
	report("unwatched.again", in_child(unwatched, NULL), "ns");
	return 0;
}
