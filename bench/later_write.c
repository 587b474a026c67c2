/*
 * later_write.c -- a hot loop on one page: after the first write of a window the page is open, and a write costs what
 * it costs unwatched.
 */
#include "watching.h"

enum { ROUNDS = 3, WRITES = 50000000 };

static uint8_t *memory;

static double loop_ns(void)
{
	double rounds[ROUNDS];
	for (int k = 0; k < ROUNDS; k++) {
		double start = thread_ns();
		for (unsigned i = 0; i < WRITES; i++)
			poke(memory + (i & 63), (uint8_t)i);
		rounds[k] = (thread_ns() - start) / WRITES;
	}
	return median(rounds, ROUNDS);
}

static double unwatched(void *arg)
{
	(void)arg;
	return loop_ns();
}

static double watched(void *budget)
{
	memwatch *watcher = open_watcher("uffd", *(double *)budget);
	add_region(watcher, memory, PAGE);
	double result = loop_ns();
	memwatch_close(watcher);
	return result;
}

int main(void)
{
	enum { TURNS = 5 };
	double off = 0, on = 1, results[3][TURNS];
	memory = map_small_pages(PAGE);
	memset(memory, 1, PAGE);
	for (int turn = 0; turn < TURNS; turn++) {
		results[0][turn] = in_child(unwatched, NULL);
		results[1][turn] = in_child(watched, &off);
		results[2][turn] = in_child(watched, &on);
	}
	report("unwatched", median(results[0], TURNS), "ns");
	report("memwatch.attribution_off", median(results[1], TURNS), "ns");
	report("memwatch.attribution_on", median(results[2], TURNS), "ns");
	return 0;
}
