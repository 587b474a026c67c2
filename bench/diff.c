/*
 * diff.c -- the comparison alone, beside a memcmp of the same pages: pages that were written with the bytes they had,
 * and pages of which one byte changed, which are copied, compared again in blocks, and kept. "kernel": read through the
 * kernel, as all memory is that nobody promises to keep.
 */
#include "bench.h"

#include "worker/gather.h"

enum { ROUNDS = 11 };

static const size_t region_bytes = (size_t)64 << 20;
static uint8_t *memory, *shadow;

/* The pages that are dirty, as the runs that a collect gives. */
static struct span runs[1 << 14];
static struct span_list dirty = { .spans = runs };
static struct region region;
static struct gather gather;

static void choose_pages(unsigned percent)
{
	dirty.n = 0;
	for (size_t page = 0; page < region_bytes / PAGE; page++) {
		uint64_t start = (uintptr_t)memory + page * PAGE;
		if (page * percent / 100 == (page + 1) * percent / 100)
			continue;
		if (dirty.n && runs[dirty.n - 1].end == start)
			runs[dirty.n - 1].end += PAGE;
		else
			runs[dirty.n++] = (struct span){ start, start + PAGE };
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
	for (size_t i = 0; i < dirty.n; i++)
		differs |= memcmp((void *)(uintptr_t)runs[i].start, shadow + (runs[i].start - region.start),
				  runs[i].end - runs[i].start);
	return gigabytes_per_s(percent, thread_ns() - start);
}

static double diff_pages(struct diff *diff, unsigned percent, uint8_t flags)
{
	double start = thread_ns();
	region.flags = flags;
	diff_reset(diff, 64 << 20);
	if (gather_diff(&gather, diff, &region, &dirty) < 0)
		die("gather_diff");
	return gigabytes_per_s(percent, thread_ns() - start);
}

static void change(void)
{
	for (size_t i = 0; i < dirty.n; i++)
		for (uint64_t page = runs[i].start; page < runs[i].end; page += PAGE)
			((uint8_t *)(uintptr_t)page)[99]++;
}

enum { COMPARED, EQUAL, CHANGED, KERNEL_EQUAL, KERNEL_CHANGED, KINDS };
static const char *const kinds[KINDS] = { "memcmp.%u_percent", "memwatch.%u_percent.equal",
					  "memwatch.%u_percent.changed", "kernel.%u_percent.equal",
					  "kernel.%u_percent.changed" };

static void measure(struct diff *diff, unsigned percent)
{
	double speed[KINDS][ROUNDS];
	char name[60];
	choose_pages(percent);
	for (int i = 0; i < ROUNDS; i++) {
		speed[COMPARED][i] = compare(percent);
		speed[EQUAL][i] = diff_pages(diff, percent, MEMWATCH_REGION_PINNED);
		speed[KERNEL_EQUAL][i] = diff_pages(diff, percent, 0);
		change();
		speed[CHANGED][i] = diff_pages(diff, percent, MEMWATCH_REGION_PINNED);
		change();
		speed[KERNEL_CHANGED][i] = diff_pages(diff, percent, 0);
	}
	for (int kind = 0; kind < KINDS; kind++) {
		snprintf(name, sizeof name, kinds[kind], percent);
		report(name, median(speed[kind], ROUNDS), "GB/s");
	}
}

int main(void)
{
	struct diff diff;
	memory = map_small_pages(region_bytes);
	shadow = map_small_pages(region_bytes);
	memset(memory, 1, region_bytes);
	memcpy(shadow, memory, region_bytes);
	region = (struct region){ .start = (uintptr_t)memory, .size_bytes = region_bytes, .shadow = shadow };
	diff_init(&diff);
	if (gather_init(&gather) < 0)
		die("gather_init");
	measure(&diff, 1);
	measure(&diff, 10);
	measure(&diff, 100);
	gather_fini(&gather);
	diff_fini(&diff);
	return 0;
}
