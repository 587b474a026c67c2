/*
 * test_truth.c -- who is named: the author of what an event tells, and nobody in his place. Each write is numbered, so
 * that an event's value says who made it.
 */
#include "watching.h"

#include <memwatch/reader.h>

/* Two authors, known by the functions that store, which are small. */
#define AUTHOR __attribute__((noinline, noipa, no_sanitize("thread"))) static

AUTHOR void store_even(uint64_t *to, uint64_t value)
{
	*(volatile uint64_t *)to = value;
}

AUTHOR void store_odd(uint64_t *to, uint64_t value)
{
	*(volatile uint64_t *)to = value;
	__asm__ volatile("nop");
}

static void write_number(uint64_t *to, uint64_t value)
{
	(value & 1 ? store_odd : store_even)(to, value);
}

static bool in_function(uint64_t ip, void (*function)(uint64_t *, uint64_t))
{
	return ip - (uintptr_t)function < 32;
}

/* Is the author that the event names one whose write it may hold? Numbers from `old` (not) to `now` are in it. */
static bool is_true(const struct memwatch_event *event)
{
	uint64_t old, now;
	memcpy(&old, event->old_value, sizeof old);
	memcpy(&now, event->new_value, sizeof now);
	bool odd = now - old > 1 || now & 1, even = now - old > 1 || !(now & 1);
	return event->where.attribution != MEMWATCH_ATTRIBUTION_EXACT ||
	       (odd && in_function(event->where.fault_ip, store_odd)) ||
	       (even && in_function(event->where.fault_ip, store_even));
}

struct audit {
	uint64_t n, n_exact, n_wrong;
};

static void read_all(memwatch *watcher, struct memwatch_cursor *cursor, struct audit *audit)
{
	const struct memwatch_event *events[64];
	for (int n; (n = memwatch_events_read(watcher, cursor->next, events, 64, cursor)) > 0;)
		for (int i = 0; i < n; i++) {
			audit->n++;
			audit->n_exact += events[i]->where.attribution == MEMWATCH_ATTRIBUTION_EXACT;
			audit->n_wrong += !is_true(events[i]);
			memwatch_event_unref(events[i]);
		}
}

static atomic_bool stop;

static void *flush_always(void *watcher)
{
	while (!atomic_load(&stop))
		memwatch_flush(watcher, PATIENCE_MS);
	return NULL;
}

/* --- memwatch's own threads --- */

static void *write_as_own(void *arg)
{
	memwatch_thread_own();
	poke(arg, 7);
	return NULL;
}

/* A thread that serves memwatch is nobody: neither as the author nor as who wrote to the page. */
TEST(a_thread_of_memwatchs_own_is_no_writer)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_unhurried();
	pthread_t thread;
	add_region(watcher, memory, PAGE, "region");
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	CHECK(pthread_create(&thread, NULL, write_as_own, memory + 3) == 0);
	pthread_join(thread, NULL);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_NONE);
	CHECK_EQ(event->where.reason, MEMWATCH_REASON_OWN);
	CHECK(!event->where.page_writer);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

static __attribute__((noinline, noclone)) void write_before(uint8_t *place, uint8_t value)
{
	__asm__ volatile("# else the compiler makes one function of both");
	poke(place, value);
}

static __attribute__((noinline, noclone)) void write_after(uint8_t *place, uint8_t value)
{
	poke(place, value);
}

static void check_not_before(memwatch *watcher, uint64_t id)
{
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK(event);
	if (event->where.attribution == MEMWATCH_ATTRIBUTION_EXACT)
		CHECK(strcmp(event->where.symbol, "write_after") == 0);
	memwatch_event_unref(event);
}

/* The page is open since a write to another region that lies there too: that write's note is no author of it. */
BACKEND_TEST(who_wrote_before_a_region_was_there_is_not_its_author)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend(backend);
	add_unlent(watcher, memory, PAGE, "page");
	for (uint8_t i = 1; i <= 40; i++) {
		char name[16];
		snprintf(name, sizeof name, "part%d", i);
		write_before(memory + 100, (uint8_t)(2 * i));
		uint64_t id = add_unlent(watcher, memory + 50, 200, name);
		write_after(memory + 100, (uint8_t)(2 * i + 1));
		check_not_before(watcher, id);
		OK(memwatch_region_remove(watcher, id));
	}
	memwatch_close(watcher);
}

/* The mapping goes, and another one has its addresses, all within a window. */
BACKEND_TEST(who_wrote_to_memory_that_is_gone_is_not_its_successors_author)
{
	memwatch *watcher = open_backend(backend);
	for (int i = 0; i < 40; i++) {
		char name[16];
		uint8_t *memory = map_pages(4);
		snprintf(name, sizeof name, "gone%d", i);
		add_unlent(watcher, memory, 4 * PAGE, name);
		write_before(memory + 100, 1);
		CHECK(mmap(memory, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		      memory);
		snprintf(name, sizeof name, "come%d", i);
		uint64_t id = add_unlent(watcher, memory, 4 * PAGE, name);
		write_after(memory + 100, 2);
		check_not_before(watcher, id);
	}
	memwatch_close(watcher);
}

/* What the self-test of a backend wrote, where the region's memory lies now. */
BACKEND_TEST(the_self_test_is_nobodys_author)
{
	memwatch *watcher = open_backend(backend);
	uint8_t *memory = map_pages(1);
	uint64_t id = add_unlent(watcher, memory, PAGE, "memory");
	write_after(memory, 1);
	check_not_before(watcher, id);
	memwatch_close(watcher);
}

/* Two lines that take turns, each write told before the next, while somebody else makes the passes. */
TEST(two_lines_that_take_turns)
{
	uint64_t *cell = (uint64_t *)(void *)map_pages(1);
	memwatch *watcher = open_backend("uffd");
	struct memwatch_cursor cursor = { .next = 0 };
	struct audit audit = { 0 };
	pthread_t flusher;
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	add_region(watcher, cell, sizeof *cell, "cell");
	CHECK(pthread_create(&flusher, NULL, flush_always, watcher) == 0);
	uint64_t n_rounds = (uint64_t)of_load(8000);
	for (uint64_t i = 1; i <= n_rounds; i++) {
		write_number(cell, i);
		while (audit.n < i) {
			OK(memwatch_events_wait(watcher, cursor.next, PATIENCE_MS));
			read_all(watcher, &cursor, &audit);
		}
	}
	atomic_store(&stop, true);
	pthread_join(flusher, NULL);
	CHECK_EQ(audit.n_wrong, 0);
	CHECK_OP(audit.n_exact, >, n_rounds * 9 / 10);
	memwatch_close(watcher);
}

/* The same without waiting: writes race with the passes that tell of them. */
TEST(two_lines_that_race_with_passes)
{
	uint64_t *cell = (uint64_t *)(void *)map_pages(1);
	memwatch *watcher = open_backend("uffd");
	struct memwatch_cursor cursor = { .next = 0 };
	struct audit audit = { 0 };
	pthread_t flusher;
	add_region(watcher, cell, sizeof *cell, "cell");
	CHECK(pthread_create(&flusher, NULL, flush_always, watcher) == 0);
	double end = harness_now_s() + of_load(8);
	for (uint64_t i = 1; harness_now_s() < end; i++) {
		write_number(cell, i);
		for (unsigned pause = (unsigned)harness_random() % 4000; pause; pause--)
			__asm__ volatile("");
		if (i % 16 == 0)
			read_all(watcher, &cursor, &audit);
	}
	atomic_store(&stop, true);
	pthread_join(flusher, NULL);
	flush(watcher);
	read_all(watcher, &cursor, &audit);
	CHECK_EQ(audit.n_wrong, 0);
	memwatch_close(watcher);
}
