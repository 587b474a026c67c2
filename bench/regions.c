/*
 * regions.c -- what adding and removing a region costs when there are 1,000, 100,000 and 1,000,000 others.
 */
#include "watching.h"

enum { MOST = 1000000, SIZE = 32, SAMPLE = 1000 };

int main(void)
{
	static const size_t counts[] = { 1000, 100000, MOST };
	char name[40];
	size_t n = 0;
	uint8_t *memory = map_small_pages((size_t)(MOST + SAMPLE) * SIZE);
	memset(memory, 0, (size_t)(MOST + SAMPLE) * SIZE);
	memwatch *watcher = open_watcher("uffd", 0);
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
		for (; n < counts[i]; n++)
			add_region(watcher, memory + n * SIZE, SIZE);
		uint64_t more[SAMPLE];
		double start = now_ns();
		for (size_t k = 0; k < SAMPLE; k++)
			more[k] = add_region(watcher, memory + (MOST + k) * SIZE, SIZE);
		snprintf(name, sizeof name, "memwatch.add.%zu", counts[i]);
		report(name, (now_ns() - start) / SAMPLE / 1e3, "us");
		start = now_ns();
		for (size_t k = 0; k < SAMPLE; k++)
			OK(memwatch_region_remove(watcher, more[k]));
		snprintf(name, sizeof name, "memwatch.remove.%zu", counts[i]);
		report(name, (now_ns() - start) / SAMPLE / 1e3, "us");
	}
	struct memwatch_stats stats;
	OK(memwatch_stats_get(watcher, &stats));
	report("memwatch.memory_a_region", (double)stats.native_memory_bytes / (double)stats.n_regions, "bytes");
	memwatch_close(watcher);
	return 0;
}
