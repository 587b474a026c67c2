/*
 * idle.c -- the share of a core that 1,000 regions over 1 GiB cost while nobody writes.
 */
#include "watching.h"

enum { REGIONS = 1000 };

static const size_t size_bytes = (size_t)1 << 30;

static double share(void *touched)
{
	uint8_t *memory = map_small_pages(size_bytes);
	memwatch *watcher = open_watcher("uffd", 0.01);
	if (*(bool *)touched)
		for (size_t i = 0; i < size_bytes; i += PAGE)
			poke(memory + i, 1);
	for (size_t i = 0; i < REGIONS; i++)
		add_region(watcher, memory + size_bytes / REGIONS * i, size_bytes / REGIONS);
	OK(memwatch_flush(watcher, 10000));
	usleep(2 * 1000 * 1000); /* the sweep slows down */
	double cpu = cpu_ns(), wall = now_ns();
	usleep(6 * 1000 * 1000);
	double result = (cpu_ns() - cpu) / (now_ns() - wall) * 100;
	memwatch_close(watcher);
	return result;
}

int main(void)
{
	bool untouched = false, touched = true;
	report("memwatch.untouched", in_child(share, &untouched), "% of a core");
	if ((size_t)sysconf(_SC_AVPHYS_PAGES) * PAGE > 3 * size_bytes)
		report("memwatch.touched", in_child(share, &touched), "% of a core");
	return 0;
}
