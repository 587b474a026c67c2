/*
 * diff.c -- the comparison alone, beside a memcmp of the same pages: pages that were written with the bytes they had, and pages
 * of which one byte changed, which are copied, compared again in blocks, and kept.
 */
#include "bench.h"

#include "worker/diff.h"

enum { ROUNDS = 11 };

static const size_t region_bytes = (size_t)64 << 20;
static uint8_t *memory, *shadow;

/* The pages that are dirty, as the runs that a collect gives. */
static struct {
	size_t offset, size_bytes;
} runs[1 << 14];
static size_t n_runs;

static void choose_pages(unsigned percent)
{
	n_runs = 0;
	for (size_t page = 0; page < region_bytes / PAGE; page++) {
		if (page * percent / 100 == (page + 1) * percent / 100)
			continue;
		if (n_runs && runs[n_runs - 1].offset + runs[n_runs - 1].size_bytes == page * PAGE) {
			runs[n_runs - 1].size_bytes += PAGE;
		} else {
			runs[n_runs].offset = page * PAGE;
			runs[n_runs++].size_bytes = PAGE;
		}
	}
}

static double gigabytes_per_s(unsigned percent, double ns)
{
	return (double)region_bytes * percent / 100 / ns;
}

static double compare(unsigned percent)
{
	volatile int differs = 0;
	double start = thread_ns();
	for (size_t i = 0; i < n_runs; i++)
		differs |= memcmp(memory + runs[i].offset, shadow + runs[i].offset, runs[i].size_bytes);
	return gigabytes_per_s(percent, thread_ns() - start);
}

static double diff_pages(struct diff *diff, unsigned percent)
{
	double start = thread_ns();
	diff_reset(diff, 64 << 20);
	for (size_t i = 0; i < n_runs; i++) {
		if (i + 1 < n_runs)
			diff_expect((uintptr_t)memory, shadow, runs[i + 1].offset);
		diff_memory(diff, (uintptr_t)memory, shadow, runs[i].offset, runs[i].size_bytes, true);
	}
	return gigabytes_per_s(percent, thread_ns() - start);
}

static void change(void)
{
	for (size_t i = 0; i < n_runs; i++)
		for (size_t at = 0; at < runs[i].size_bytes; at += PAGE)
			memory[runs[i].offset + at + 99]++;
}

static void measure(struct diff *diff, unsigned percent)
{
	double compared[ROUNDS], equal[ROUNDS], changed[ROUNDS];
	char name[60];
	choose_pages(percent);
	for (int i = 0; i < ROUNDS; i++) {
		compared[i] = compare(percent);
		equal[i] = diff_pages(diff, percent);
		change();
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
