/*
 * events.c -- events a second, from the write to the callback: 1,000 regions on 1,000 pages, each written whenever it
 * can be, for three seconds; and how long one write alone takes to reach the callback, in a small region and in one of
 * 1 GiB.
 */
#include "watching.h"

#include <stdatomic.h>

enum { REGIONS = 1000, SINGLES = 200 };

static _Atomic uint64_t n_called;
static _Atomic uint64_t last_called_ns;

static void on_change(const struct memwatch_event *event, void *arg)
{
	(void)event;
	(void)arg;
	atomic_store(&last_called_ns, (uint64_t)now_ns());
	atomic_fetch_add(&n_called, 1);
}

static uint8_t *memory;

static double events_per_s(void *budget)
{
	memwatch *watcher = open_watcher("uffd", *(double *)budget);
	for (size_t i = 0; i < REGIONS; i++)
		add_region(watcher, memory + i * PAGE, 64);
	OK(memwatch_callback_set(watcher, on_change, NULL));
	double start = now_ns();
	for (uint8_t value = 1; now_ns() - start < 3e9; value++)
		for (size_t i = 0; i < REGIONS; i++)
			poke(memory + i * PAGE + 8, value);
	OK(memwatch_flush(watcher, 10000));
	double seconds = (now_ns() - start) / 1e9;
	memwatch_close(watcher);
	return (double)atomic_load(&n_called) / seconds;
}

static double latency_ms(void *region_bytes)
{
	double times[SINGLES];
	size_t size_bytes = *(size_t *)region_bytes;
	uint8_t *bytes = map_small_pages(size_bytes);
	memwatch *watcher = open_watcher("uffd", 1);
	memset(bytes, 0, size_bytes);
	add_region(watcher, bytes, size_bytes);
	OK(memwatch_callback_set(watcher, on_change, NULL));
	for (int i = 0; i < SINGLES; i++) {
		uint64_t before = atomic_load(&n_called);
		usleep(20000);
		double start = now_ns();
		poke(bytes + size_bytes / SINGLES * (size_t)i, 1);
		while (atomic_load(&n_called) == before)
			usleep(50);
		times[i] = ((double)atomic_load(&last_called_ns) - start) / 1e6;
	}
	memwatch_close(watcher);
	return median(times, SINGLES);
}

int main(void)
{
	double off = 0, on = 1;
	size_t small = PAGE, large = (size_t)1 << 30;
	memory = map_small_pages((size_t)REGIONS * PAGE);
	memset(memory, 0, (size_t)REGIONS * PAGE);
	report("memwatch.attribution_off", in_child(events_per_s, &off), "events/s");
	report("memwatch.attribution_on", in_child(events_per_s, &on), "events/s");
	report("memwatch.write_to_callback", in_child(latency_ms, &small), "ms");
	report("memwatch.write_to_callback.1_GiB", in_child(latency_ms, &large), "ms");
	return 0;
}
