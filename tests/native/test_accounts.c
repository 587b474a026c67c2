/*
 * test_accounts.c -- what the library says of its own cost: memory as the kernel counts it, records a region, pages
 * that a pass reads, how soon one byte of a gigabyte is an event, and what a writer that never rests can make it take.
 */
#include "watching.h"

#include "base/region.h"

enum { SMALL = 100000, SMALL_BYTES = 16, ROUNDS = 10, HUGE_PAGES = 1 << 18 };

/* The size of the process's writable private memory, in bytes. */
static uint64_t address_space(void)
{
	unsigned long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");
	CHECK(file && fscanf(file, "%lu", &pages) == 1);
	fclose(file);
	return (uint64_t)pages * PAGE;
}

TEST(native_memory_is_what_the_kernel_counts)
{
	SKIP_UNDER(UNDER_ASAN); /* the kernel counts what it maps for itself, too */
	uint8_t *memory = map_pages(1 << 14);
	memwatch *watcher = open_backend("poll");
	flush(watcher);
	uint64_t said = stats_of(watcher).native_memory_bytes, counted = address_space();
	for (int i = 0; i < 4; i++)
		add_region(watcher, memory + ((size_t)i << 24), 1 << 24, (char[]){ (char)('a' + i), 0 });
	said = stats_of(watcher).native_memory_bytes - said;
	counted = address_space() - counted;
	CHECK_OP(said, >=, UINT64_C(4) << 24);
	CHECK_OP(said < counted ? counted - said : said - counted, <=, 1 << 20);
	memwatch_close(watcher);
}

/* The memory that each of SMALL regions takes. */
static uint64_t bytes_a_region(memwatch *watcher, uint8_t *memory, struct memwatch_region_options *options)
{
	char name[16] = "first";
	options->name = name;
	OK(memwatch_region_add(watcher, memory, SMALL_BYTES, options, NULL)); /* what there is one of, whatever comes */
	uint64_t before = stats_of(watcher).native_memory_bytes;
	for (int i = 0; i < SMALL; i++) {
		snprintf(name, sizeof name, "%d", i);
		OK(memwatch_region_add(watcher, memory + (size_t)i * SMALL_BYTES, SMALL_BYTES, options, NULL));
	}
	return (stats_of(watcher).native_memory_bytes - before) / SMALL;
}

/*
 * A block that holds a shadow of 16 bytes and a short name, its place in the table of names, and in the list of what is
 * polled.
 */
enum { NAME_AND_SHADOW = 32 + 16, POLLED = 16 };

static void check_small(struct memwatch_region_options *options)
{
	uint8_t *memory = map_pages(SMALL * SMALL_BYTES / PAGE + 1);
	memwatch *watcher = open_backend("poll");
	CHECK_OP(bytes_a_region(watcher, memory, options), <=, 96 + NAME_AND_SHADOW + POLLED);
	memwatch_close(watcher);
}

TEST(a_small_region_takes_little)
{
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	check_small(&options);
}

TEST(a_type_and_a_metric_cost_a_region_nothing)
{
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	options.format = "<f";
	options.item_bytes = 4;
	options.n_dims = 2;
	options.shape = (uint64_t[]){ 2, 2 };
	options.metric = 1;
	check_small(&options);
}

TEST(a_region_that_changed_takes_one_small_record_more)
{
	uint8_t *memory = map_pages(SMALL * SMALL_BYTES / PAGE + 1);
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	options.format = "<q";
	options.item_bytes = 8;
	options.values = MEMWATCH_VALUES_PREVIEW; /* no versions are kept */
	memwatch *watcher = open_backend("poll");
	CHECK_OP(bytes_a_region(watcher, memory, &options), <=, 96 + NAME_AND_SHADOW + POLLED);
	/*
	 * First what the log, the diff and a pass take, which is not a region's. Often, since a look that comes between
	 * leaves less to a pass.
	 */
	for (uint8_t round = 1; round <= ROUNDS; round++) {
		for (size_t i = 0; i < SMALL / 2; i++)
			poke(memory + i * SMALL_BYTES, round);
		flush(watcher);
	}
	uint64_t before = stats_of(watcher).native_memory_bytes;
	for (size_t i = SMALL / 2; i < SMALL; i++)
		poke(memory + i * SMALL_BYTES, 1);
	flush(watcher);
	CHECK_OP((stats_of(watcher).native_memory_bytes - before) / (SMALL / 2), <=, 96 + 4);
	memwatch_close(watcher);
}

TEST(one_byte_in_a_gigabyte_costs_one_page)
{
	uint8_t *memory = map_pages(HUGE_PAGES);
	memwatch *watcher = open_backend("uffd");
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	options.name = "gigabyte";
	options.flags = MEMWATCH_REGION_HASHED; /* no second gigabyte for a test */
	OK(memwatch_region_add(watcher, memory, (size_t)HUGE_PAGES * PAGE, &options, NULL));
	flush(watcher);
	uint64_t before = stats_of(watcher).pages_written;
	poke(memory + 12345 * (size_t)PAGE + 678, 9);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->changes[0].offset, 12345 * (uint64_t)PAGE);
	CHECK_OP(stats_of(watcher).pages_written - before, <=, 2);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

/* From the store until the event can be read, in ms. */
static double latency_ms(memwatch *watcher, uint8_t *at, uint64_t since)
{
	double start_s = harness_now_s();
	poke(at, (uint8_t)(*at + 1));
	CHECK_EQ(memwatch_events_wait(watcher, since, PATIENCE_MS), 1);
	return (harness_now_s() - start_s) * 1000;
}

TEST(one_byte_in_a_gigabyte_is_an_event_within_two_windows)
{
	enum { WINDOW_MS = 300, TRIES = 3 };
	struct memwatch_options options;
	memwatch_options_init(&options);
	options.backend = "uffd";
	options.attribution_budget = 1;
	options.window_ms = WINDOW_MS;
	memwatch *watcher = open_with(&options);
	uint8_t *memory = map_pages(HUGE_PAGES);
	if (memwatch_region_add(watcher, memory, (size_t)HUGE_PAGES * PAGE, NULL, NULL) == -ENOMEM)
		SKIP("no memory for a shadow of a gigabyte");
	flush(watcher);
	double best_ms = 1e9;
	for (uint64_t i = 0; i < TRIES; i++) {
		double ms = latency_ms(watcher, memory + (i * 81920 + 77) * PAGE + 5, i);
		best_ms = ms < best_ms ? ms : best_ms;
	}
	CHECK_OP(best_ms, <, 2.0 * WINDOW_MS);
	CHECK_EQ(newest(watcher), TRIES);
	memwatch_close(watcher);
}

enum { OVERWRITTEN = 100 << 20, BUDGET = 64 << 20 };
static atomic_bool enough;

/* Changes a byte of each line of it, again and again. */
static void *overwrite(void *memory)
{
	for (uint8_t value = 1; !enough; value++)
		for (size_t at = 0; at < OVERWRITTEN && !enough; at += 64)
			poke((uint8_t *)memory + at, value);
	return NULL;
}

TEST(the_budget_holds_while_a_hundred_megabytes_are_overwritten)
{
	uint8_t *memory = map_pages(OVERWRITTEN / PAGE);
	struct memwatch_options options;
	memwatch_options_init(&options);
	options.history_budget = BUDGET;
	memwatch *watcher = open_with(&options);
	add_region(watcher, memory, OVERWRITTEN, "large");
	flush(watcher);
	uint64_t with_shadow = stats_of(watcher).native_memory_bytes, most = 0;
	CHECK_OP(with_shadow, >=, OVERWRITTEN);
	pthread_t thread;
	CHECK_EQ(pthread_create(&thread, NULL, overwrite, memory), 0);
	struct memwatch_stats stats;
	double end = harness_now_s() + harness_limit_s() / 2;
	do { /* until it has thrown versions away several times */
		usleep(1000);
		stats = stats_of(watcher);
		most = stats.native_memory_bytes > most ? stats.native_memory_bytes : most;
	} while (stats.history.evicted < 5 && harness_now_s() < end);
	enough = true;
	pthread_join(thread, NULL);
	fprintf(stderr, "at most %.1f MiB beside the shadow, for a budget of %d\n",
		(double)(most - with_shadow) / (1 << 20), BUDGET >> 20);
	CHECK_OP(stats.history.evicted, >=, 5);
	CHECK_OP(most - with_shadow, <=, BUDGET * 6 / 5);
	check_ledgers(watcher);
	memwatch_close(watcher);
}
