/*
 * test_values.c -- what an event and the history tell of values: versions, changed ranges, patches, numbers.
 */
#include "watching.h"

/* --- versions --------------------------------------------------------------------------------------------------- */

enum { LARGE = 100000 };

static void check_version(memwatch *watcher, const char *key, const uint8_t *expected)
{
	static uint8_t buffer[LARGE];
	CHECK_EQ(strlen(key), MEMWATCH_KEY_SIZE - 1);
	CHECK_EQ(memwatch_load(watcher, key, NULL, 0), LARGE);
	CHECK_EQ(memwatch_load(watcher, key, buffer, sizeof buffer), LARGE);
	CHECK(memcmp(buffer, expected, LARGE) == 0);
}

TEST(every_version_can_be_loaded)
{
	enum { VERSIONS = 60 };
	static uint8_t copies[VERSIONS + 1][LARGE];
	static const struct memwatch_event *events[VERSIONS];
	uint8_t *memory = map_pages(LARGE / PAGE + 1);
	memwatch *watcher = open_unhurried();
	uint64_t state = 1;
	add_region(watcher, memory, LARGE, "large");
	for (uint64_t i = 0; i < VERSIONS; i++) {
		for (int k = 0; k < 20; k++) {
			state = state * 6364136223846793005u + 1442695040888963407u;
			size_t at = (state >> 33) % (LARGE - 300);
			memset(memory + at, (int)(i + 1), (state >> 20) % 300 + 1);
		}
		events[i] = only_event(watcher, i);
		memcpy(copies[i + 1], memory, LARGE);
		CHECK(events[i]->old_value == NULL && events[i]->new_value == NULL);
		CHECK_EQ(events[i]->preview_bytes, 256);
	}
	for (int i = 0; i < VERSIONS; i++) {
		check_version(watcher, events[i]->storage_key_old, copies[i]);
		check_version(watcher, events[i]->storage_key_new, copies[i + 1]);
		memwatch_event_unref(events[i]);
	}
	CHECK_OP(stats_of(watcher).history.bytes, <, 60 * LARGE);
	memwatch_close(watcher);
}

TEST(an_evicted_version_is_a_clear_error)
{
	struct memwatch_options options;
	uint8_t *memory = map_pages(LARGE / PAGE + 1);
	char first[MEMWATCH_KEY_SIZE], last[MEMWATCH_KEY_SIZE];
	memwatch_options_init(&options);
	options.history_budget = 300000;
	options.window_ms = 10000; /* each memset is one event */
	memwatch *watcher = open_with(&options);
	add_region(watcher, memory, LARGE, "large");
	for (uint64_t i = 0; i < 10; i++) {
		memset(memory, (int)i + 1, LARGE);
		const struct memwatch_event *event = only_event(watcher, i);
		memcpy(i == 0 ? first : last, event->storage_key_old, MEMWATCH_KEY_SIZE);
		memwatch_event_unref(event);
	}
	CHECK_OP(stats_of(watcher).history.bytes, <=, 300000);
	CHECK_OP(stats_of(watcher).history.evicted, >=, 6);
	CHECK_EQ(memwatch_load(watcher, last, NULL, 0), LARGE);
	FAILS(memwatch_load(watcher, first, NULL, 0), ENOENT);
	memwatch_close(watcher);
}

TEST(bad_keys_are_refused)
{
	static const char *const bad[] = { "",
					   "x",
					   "0123456789abcdef0123456789abcde",
					   "0123456789abcdef0123456789abcdeg",
					   "0123456789abcdef0123456789abcdef0",
					   "../../../../../etc/passwd" };
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		FAILS(memwatch_load(watcher, bad[i], NULL, 0), EINVAL);
	FAILS(memwatch_load(watcher, "0123456789abcdef0123456789abcdef", NULL, 0), ENOENT);
	memwatch_close(watcher);
}

/* --- changes ---------------------------------------------------------------------------------------------------- */

TEST(changed_ranges_are_listed_up_to_their_number)
{
	uint8_t *memory = map_pages(4);
	memwatch *watcher = open_unhurried();
	add_region(watcher, memory, 4 * PAGE, "a");
	for (int i = 0; i < 40; i++)
		memory[i * 300 + 5] = 1;
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->changed_bytes, 40);
	CHECK_EQ(event->n_changes, 40);
	for (uint32_t i = 0; i < 40; i++) {
		CHECK_EQ(event->changes[i].offset, i * 300 + 5);
		CHECK_EQ(event->changes[i].size_bytes, 1);
	}
	memwatch_event_unref(event);
	for (int i = 0; i < 200; i++)
		memory[i * 80 + 7] = 2;
	event = only_event(watcher, 1);
	CHECK_EQ(event->changed_bytes, 200);
	CHECK_EQ(event->n_changes, MEMWATCH_CHANGES_MAX);
	const struct memwatch_range *last = &event->changes[MEMWATCH_CHANGES_MAX - 1];
	CHECK_EQ(last->offset, 63 * 80 + 7);
	CHECK_EQ(last->offset + last->size_bytes, 199 * 80 + 8);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

TEST(values_are_inline_up_to_the_threshold)
{
	struct memwatch_options options;
	uint8_t *memory = map_pages(2);
	memwatch_options_init(&options);
	options.inline_threshold = 100;
	options.preview_size = 10;
	memwatch *watcher = open_with(&options);
	add_region(watcher, memory, 100, "small");
	add_region(watcher, memory + 1000, 101, "large");
	poke(memory + 5, 1);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK(event->new_value && event->new_value[5] == 1 && event->old_value[5] == 0);
	CHECK_EQ(event->preview_bytes, 10);
	memwatch_event_unref(event);
	poke(memory + 1005, 1);
	event = only_event(watcher, 1);
	CHECK(!event->new_value && !event->old_value);
	CHECK_EQ(event->new_preview[5], 1);
	CHECK_EQ(strlen(event->storage_key_old), 32);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

TEST(a_patch_has_both_sides)
{
	struct memwatch_options options;
	uint64_t run[2];
	uint8_t *memory = map_pages(4);
	memwatch_options_init(&options);
	options.patches = 1;
	memwatch *watcher = open_with(&options);
	memset(memory + PAGE, 7, PAGE);
	add_region(watcher, memory, 4 * PAGE, "large");
	poke(memory + PAGE + 100, 9);
	const struct memwatch_event *event = only_event(watcher, 0);
	memcpy(run, event->patch, sizeof run);
	CHECK_EQ(event->patch_bytes, sizeof run + run[1]);
	uint64_t at = sizeof run + PAGE + 100 - run[0];
	CHECK_EQ(event->patch[at], 9);
	CHECK_EQ(event->patch_old[at], 7);
	CHECK_EQ(event->patch[at + 1], 7);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

/* A packed structure's numbers begin anywhere: pages, and with them what is compared, may begin within one. */
TEST(a_condition_reads_whole_elements_wherever_they_lie)
{
	struct memwatch_region_options region;
	uint8_t *memory = map_pages(3), *start = memory + 2;
	const uint64_t wanted = 1000, other = 1000 << 16;
	memwatch *watcher = open_unhurried();
	memwatch_region_options_init(&region);
	region.format = "Q";
	region.when = MEMWATCH_WHEN_EQ;
	region.low = 1000;
	OK(memwatch_region_add(watcher, start, 1000 * sizeof wanted, &region, NULL));
	for (uint64_t seq = 0, element = 509; element < 515; element++, seq++) {
		memcpy(start + element * 8, &wanted, sizeof wanted); /* element 511 lies on two pages */
		const struct memwatch_event *event = only_event(watcher, seq);
		CHECK_EQ(event->changes[0].offset / 8, element);
		memwatch_event_unref(event);
	}
	memcpy(start + 511 * 8, &other, sizeof other);
	memcpy(start + 600 * 8, &other, sizeof other);
	CHECK_EQ(newest(watcher), 6);
	CHECK_EQ(stats_of(watcher).ledger.filtered, 1);
	memwatch_close(watcher);
}

/* What a condition kept back is in no event, so the next event's patch alone would be wrong. */
TEST(a_patch_that_would_leave_a_hole_is_not_told)
{
	struct memwatch_options options;
	struct memwatch_region_options region;
	double *numbers = (double *)(void *)map_pages(4);
	memwatch_options_init(&options);
	options.patches = 1;
	memwatch *watcher = open_with(&options);
	memwatch_region_options_init(&region);
	region.format = "d";
	region.item_bytes = sizeof *numbers;
	region.when = MEMWATCH_WHEN_GT;
	region.low = 5;
	OK(memwatch_region_add(watcher, numbers, 4 * PAGE, &region, NULL));
	numbers[1000] = 2;
	flush(watcher);
	numbers[7] = 6;
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK(!event->patch && !event->patch_old);
	memwatch_event_unref(event);
	numbers[8] = 6;
	event = only_event(watcher, 1);
	CHECK(event->patch && event->patch_old);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

/* --- excerpts --------------------------------------------------------------------------------------------------- */

static uint64_t add_items(memwatch *watcher, void *address, size_t item_bytes, enum memwatch_values values)
{
	struct memwatch_region_options options;
	uint64_t id;
	memwatch_region_options_init(&options);
	options.format = item_bytes == 4 ? "f" : "x";
	options.item_bytes = item_bytes;
	options.values = values;
	OK(memwatch_region_add(watcher, address, 16 * PAGE / item_bytes * item_bytes, &options, &id));
	return id;
}

static float float_at(const uint8_t *bytes)
{
	float number;
	memcpy(&number, bytes, sizeof number);
	return number;
}

TEST(an_excerpt_shows_the_items_behind_the_preview)
{
	uint64_t run[2];
	float *numbers = (float *)(void *)map_pages(16);
	memwatch *watcher = open_unhurried();
	numbers[3000] = 0.5F;
	add_items(watcher, numbers, sizeof *numbers, MEMWATCH_VALUES_FULL);
	numbers[2] = 1;
	numbers[3000] = 8;
	numbers[15000] = 9;
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->excerpt_bytes, 2 * (sizeof run + sizeof *numbers));
	memcpy(run, event->old_excerpt, sizeof run);
	CHECK_EQ(run[0], 3000 * sizeof *numbers);
	CHECK_EQ(run[1], sizeof *numbers);
	CHECK(memcmp(run, event->new_excerpt, sizeof run) == 0);
	CHECK(float_at(event->old_excerpt + sizeof run) == 0.5F);
	CHECK(float_at(event->new_excerpt + sizeof run) == 8);
	CHECK(float_at(event->new_excerpt + event->excerpt_bytes - sizeof *numbers) == 9);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

/* Whatever is kept of the history, and however much changed. */
TEST(an_excerpt_is_short)
{
	struct memwatch_options options;
	uint8_t *memory = map_pages(16);
	memwatch_options_init(&options);
	options.history_budget = 0;
	options.window_ms = 10000;
	memwatch *watcher = open_with(&options);
	add_items(watcher, memory, 4, MEMWATCH_VALUES_FULL);
	memset(memory, 7, 16 * PAGE);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->excerpt_bytes, 16 + 256);
	memwatch_event_unref(event);
	for (size_t i = 0; i < 16 * PAGE; i += 512)
		poke(memory + i, 9);
	event = only_event(watcher, 1);
	CHECK_EQ(event->excerpt_bytes, 16 * (16 + 4));
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

TEST(an_excerpt_has_whole_items)
{
	enum { ITEM = 600 };
	uint64_t run[2];
	uint8_t *memory = map_pages(16);
	memwatch *watcher = open_unhurried();
	for (size_t i = 0; i < 16 * PAGE; i++)
		memory[i] = (uint8_t)(i % 251);
	add_items(watcher, memory, ITEM, MEMWATCH_VALUES_FULL);
	poke(memory + 50 * ITEM + 1, 252);
	poke(memory + 50 * ITEM + ITEM - 1, 253);
	poke(memory + 60 * ITEM, 254); /* there is no room for two */
	const struct memwatch_event *event = only_event(watcher, 0);
	memcpy(run, event->new_excerpt, sizeof run);
	CHECK_EQ(run[0], 50 * ITEM);
	CHECK_EQ(run[1], ITEM);
	CHECK_EQ(event->excerpt_bytes, sizeof run + ITEM);
	CHECK(memcmp(event->new_excerpt + sizeof run, memory + 50 * ITEM, ITEM) == 0);
	for (size_t i = 0; i < ITEM; i++)
		CHECK_EQ(event->old_excerpt[sizeof run + i], (50 * ITEM + i) % 251);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

TEST(no_policy_but_full_has_an_excerpt)
{
	static const enum memwatch_values policies[] = { MEMWATCH_VALUES_PREVIEW, MEMWATCH_VALUES_HASH,
							 MEMWATCH_VALUES_NONE };
	for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
		uint8_t *memory = map_pages(16);
		memwatch *watcher = open_unhurried();
		add_items(watcher, memory, 4, policies[i]);
		poke(memory + 12000, 9);
		const struct memwatch_event *event = only_event(watcher, 0);
		CHECK(!event->old_excerpt && !event->new_excerpt && !event->excerpt_bytes);
		memwatch_event_unref(event);
		memwatch_close(watcher);
	}
}

TEST(numbers_are_read_by_their_format)
{
	union memwatch_number_value value;
	uint16_t half = 0x3e00;
	uint64_t large = UINT64_MAX;
	long double extended = 0.25L;
	CHECK_EQ(memwatch_number_read("e", 2, &half, &value), MEMWATCH_NUMBER_DOUBLE);
	CHECK(value.as_double == 1.5);
	CHECK_EQ(memwatch_number_read(">h", 2, "\xff\xfe", &value), MEMWATCH_NUMBER_INT);
	CHECK_EQ(value.as_int, -2);
	CHECK_EQ(memwatch_number_read("Q", 8, &large, &value), MEMWATCH_NUMBER_UINT);
	CHECK(value.as_uint == UINT64_MAX);
	CHECK_EQ(memwatch_number_read("T{i:a:}", 4, &large, &value), MEMWATCH_NUMBER_NONE);
	CHECK_EQ(memwatch_number_read("P", 8, &large, &value), MEMWATCH_NUMBER_UINT);
	CHECK_EQ(memwatch_number_read("?", 1, &large, &value), MEMWATCH_NUMBER_UINT);
	CHECK_EQ(memwatch_number_read("?", 2, &large, &value), MEMWATCH_NUMBER_NONE);
	CHECK_EQ(memwatch_number_read("g", sizeof extended, &extended, &value), MEMWATCH_NUMBER_DOUBLE);
	CHECK(value.as_double == 0.25);
}

TEST(memory_that_is_gone_is_no_value_of_nothing)
{
	struct memwatch_region_options options;
	uint8_t *memory = map_pages(1), buffer[16];
	uint64_t id, seq = 77;
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	memwatch_region_options_init(&options);
	options.flags = MEMWATCH_REGION_HASHED;
	OK(memwatch_region_add(watcher, memory, PAGE, &options, &id));
	CHECK_EQ(memwatch_region_read(watcher, id, buffer, sizeof buffer), sizeof buffer);
	CHECK_EQ(munmap(memory, PAGE), 0);
	FAILS(memwatch_region_read(watcher, id, buffer, sizeof buffer), EFAULT);
	FAILS(memwatch_region_snapshot(watcher, id, buffer, sizeof buffer, &seq), EFAULT);
	CHECK_EQ(seq, 77);
	memwatch_close(watcher);
}
