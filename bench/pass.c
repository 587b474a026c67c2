/*
 * pass.c -- one pass of the worker over a large region of which 1, 10 and 100 % of the pages were written: from the
 * flush to its end, beside a memcmp of the same pages. A pass collects and re-arms, compares, copies to the shadow,
 * keeps the old bytes and makes the event.
 */
#include "watching.h"

enum { ROUNDS = 7 };

static const size_t size_bytes = (size_t)64 << 20;
static uint8_t *memory, *copy;

/* One byte in each page that is dirty, the pages spread evenly. */
static size_t dirty(unsigned percent, uint8_t value)
{
	size_t n = 0;
	for (size_t page = 0; page < size_bytes / PAGE; page++)
		if (page * percent / 100 != (page + 1) * percent / 100) {
			poke(memory + page * PAGE + 99, value);
			n++;
		}
	return n;
}

static double compare_ms(unsigned percent)
{
	double rounds[ROUNDS];
	for (int k = 0; k < ROUNDS; k++) {
		volatile int differs = 0;
		double start = now_ns();
		for (size_t page = 0; page < size_bytes / PAGE; page++)
			if (page * percent / 100 != (page + 1) * percent / 100)
				differs |= memcmp(memory + page * PAGE, copy + page * PAGE, PAGE);
		rounds[k] = (now_ns() - start) / 1e6;
	}
	return median(rounds, ROUNDS);
}

static double pass_ms(memwatch *watcher, unsigned percent)
{
	double rounds[ROUNDS];
	for (int k = 0; k < ROUNDS; k++) {
		dirty(percent, (uint8_t)(k * 2 + 1));
		double start = now_ns();
		OK(memwatch_flush(watcher, 10000));
		rounds[k] = (now_ns() - start) / 1e6;
	}
	return median(rounds, ROUNDS);
}

int main(void)
{
	static const unsigned percents[] = { 1, 10, 100 };
	char name[40];
	memory = map_small_pages(size_bytes);
	copy = map_small_pages(size_bytes);
	memset(memory, 1, size_bytes);
	memcpy(copy, memory, size_bytes);
	double compared[3];
	for (int i = 0; i < 3; i++)
		compared[i] = compare_ms(percents[i]);
	memwatch *watcher = open_watcher("uffd", 0);
	add_region(watcher, memory, size_bytes);
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "memcmp.%u_percent", percents[i]);
		report(name, compared[i], "ms");
		snprintf(name, sizeof name, "memwatch.%u_percent", percents[i]);
		report(name, pass_ms(watcher, percents[i]), "ms");
	}
	memwatch_close(watcher);
	return 0;
}
