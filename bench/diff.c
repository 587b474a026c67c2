/*
 * diff.c -- the comparison alone, beside a memcmp of the same pages: pages that were written with the bytes they had, and pages
 * of which one byte changed, which are copied, compared again in blocks, and kept.
 */
#include "bench.h"

#include "worker/diff.h"

enum { ROUNDS = 11 };

static const size_t region_bytes = (size_t)64 << 20;
static uint8_t *memory, *shadow;

static bool is_dirty(size_t page, unsigned percent)
{
	return page * percent / 100 != (page + 1) * percent / 100;
}

static double gigabytes_per_s(unsigned percent, double ns)
{
	return (double)region_bytes * percent / 100 / ns;
}

static double compare(unsigned percent)
{
	volatile int differs = 0;
	double start = thread_ns();
	for (size_t page = 0; page < region_bytes / PAGE; page++)
		if (is_dirty(page, percent))
			differs |= memcmp(memory + page * PAGE, shadow + page * PAGE, PAGE);
	return gigabytes_per_s(percent, thread_ns() - start);
}

static double diff_pages(struct diff *diff, unsigned percent)
{
	double start = thread_ns();
	diff_reset(diff, 64 << 20);
	for (size_t page = 0; page < region_bytes / PAGE; page++)
		if (is_dirty(page, percent))
			diff_memory(diff, (uintptr_t)memory, shadow, page * PAGE, PAGE, true);
	return gigabytes_per_s(percent, thread_ns() - start);
}

static void change(unsigned percent)
{
	for (size_t page = 0; page < region_bytes / PAGE; page++)
		if (is_dirty(page, percent))
			memory[page * PAGE + 99]++;
}

static void measure(struct diff *diff, unsigned percent)
{
	double compared[ROUNDS], equal[ROUNDS], changed[ROUNDS];
	char name[60];
	for (int i = 0; i < ROUNDS; i++) {
		compared[i] = compare(percent);
		equal[i] = diff_pages(diff, percent);
		change(percent);
		changed[i] = diff_pages(diff, percent);
	}
	snprintf(name, sizeof name, "memcmp.%u_percent", percent);
	report(name, median(compared, ROUNDS), "GB/s");
	snprintf(name, sizeof name, "memwatch.%u_percent.equal", percent);
	report(name, median(equal, ROUNDS), "GB/s");
	snprintf(name, sizeof name, "memwatch.%u_percent.changed", percent);
	report(name, median(changed, ROUNDS), "GB/s");
}

int main(void)
{
	struct diff diff;
	memory = map_small_pages(region_bytes);
	shadow = map_small_pages(region_bytes);
	memset(memory, 1, region_bytes);
	memcpy(shadow, memory, region_bytes);
	if (diff_init(&diff) < 0)
		die("diff_init");
	measure(&diff, 1);
	measure(&diff, 10);
	measure(&diff, 100);
	diff_fini(&diff);
	return 0;
}
