/*
 * test_merge.c -- events that max_rate has merged: they tell the way from the first old value to the last new one,
 * and no more.
 */
#include "watching.h"

static uint64_t add_limited(memwatch *watcher, void *address, size_t size_bytes)
{
	struct memwatch_region_options options;
	uint64_t id;
	memwatch_region_options_init(&options);
	options.max_rate = 0.01; /* only the first one goes out by itself; a flush lets the others go */
	OK(memwatch_region_add(watcher, address, size_bytes, &options, &id));
	return id;
}

/* A page that was opened for a store is detected, too, when a pass comes before the store: that is no change. */
static uint64_t n_changes(memwatch *watcher, uint64_t id)
{
	struct memwatch_ledger ledger = info_of(watcher, id).ledger;
	return ledger.detected - ledger.unchanged;
}

/* A pass that is no flush: the window of a short watcher. */
static void let_pass(memwatch *watcher, uint64_t id, uint64_t n)
{
	WAIT_FOR(n_changes(watcher, id) >= n);
}

static const struct memwatch_event *merged_event(memwatch *watcher, uint64_t id, uint8_t *memory,
						 const uint8_t (*writes)[2], unsigned n)
{
	poke(memory, 1);
	const struct memwatch_event *first = last_event(watcher, id);
	CHECK_EQ(first->merged, 0);
	memwatch_event_unref(first);
	for (unsigned i = 0; i < n; i++) {
		poke(memory + writes[i][0], writes[i][1]);
		let_pass(watcher, id, i + 2);
	}
	return last_event(watcher, id);
}

TEST(a_merged_event_tells_the_difference)
{
	static const uint8_t writes[][2] = { { 10, 2 }, { 50, 3 }, { 10, 0 }, { 20, 4 } };
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend("uffd");
	const struct memwatch_event *event =
		merged_event(watcher, add_limited(watcher, memory, 100), memory, writes, 4);
	CHECK_EQ(event->merged, 3);
	CHECK_EQ(event->changed_bytes, 2);
	CHECK_EQ(event->n_changes, 2);
	CHECK_EQ(event->changes[0].offset, 20);
	CHECK_EQ(event->changes[1].offset, 50);
	CHECK_EQ(event->old_value[20] + event->old_value[50] + event->old_value[10], 0);
	CHECK_EQ(event->new_value[20], 4);
	CHECK_EQ(event->new_value[50], 3);
	CHECK(event->where.attribution != MEMWATCH_ATTRIBUTION_EXACT);
	CHECK_TEXT(event->where.symbol, "");
	check_ledgers(watcher);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

/* Of a large region the ranges of all changes. */
TEST(a_merged_event_of_a_large_region_has_all_ranges)
{
	static const uint8_t writes[][2] = { { 100, 2 }, { 50, 3 }, { 101, 4 } };
	uint8_t *memory = map_pages(4);
	memwatch *watcher = open_backend("uffd");
	const struct memwatch_event *event =
		merged_event(watcher, add_limited(watcher, memory, 4 * PAGE), memory, writes, 3);
	CHECK_EQ(event->merged, 2);
	CHECK_EQ(event->n_changes, 2);
	CHECK_EQ(event->changes[0].offset, 50);
	CHECK_EQ(event->changes[1].offset, 100);
	CHECK_EQ(event->changes[1].size_bytes, 2);
	CHECK_EQ(event->changed_bytes, 3);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

/* From the first old bytes to the last new ones; what an event did not show the next cannot know. */
TEST(a_merged_excerpt_tells_the_way)
{
	static const uint8_t expected[][3] = { { 10, 0, 3 }, { 20, 0, 4 }, { 30, 0, 0 }, { 40, 0, 7 } };
	static const unsigned writes[][2] = { { 10, 2 }, { 30, 5 }, { 10, 3 }, { 20, 4 }, { 30, 0 }, { 40, 7 } };
	uint64_t run[2];
	uint8_t *memory = map_pages(4);
	memwatch *watcher = open_backend("uffd");
	uint64_t id = add_limited(watcher, memory, 4 * PAGE);
	poke(memory, 1);
	memwatch_event_unref(last_event(watcher, id));
	for (unsigned i = 0; i < 6; i++) {
		poke(memory + 5000 + writes[i][0], (uint8_t)writes[i][1]);
		let_pass(watcher, id, i + 2);
	}
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK_EQ(event->merged, 5);
	CHECK_EQ(event->excerpt_bytes, 4 * (sizeof run + 1));
	for (unsigned i = 0; i < 4; i++) {
		const size_t at = i * (sizeof run + 1);
		memcpy(run, event->old_excerpt + at, sizeof run);
		CHECK_EQ(run[0], 5000U + expected[i][0]);
		CHECK_EQ(event->old_excerpt[at + sizeof run], expected[i][1]);
		CHECK_EQ(event->new_excerpt[at + sizeof run], expected[i][2]);
	}
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

/* What was changed back is no event. */
TEST(there_and_back_is_unchanged)
{
	static const uint8_t writes[][2] = { { 10, 2 }, { 10, 0 } };
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend("uffd");
	uint64_t id = add_limited(watcher, memory, 100);
	const struct memwatch_event *event = merged_event(watcher, id, memory, writes, 2);
	CHECK_EQ(event->seq, 1);
	CHECK_EQ(info_of(watcher, id).ledger.unchanged, info_of(watcher, id).ledger.detected - 2);
	check_ledgers(watcher);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

/* So it is where nothing but hashes is told. */
TEST(there_and_back_is_unchanged_by_its_hash)
{
	struct memwatch_region_options options;
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend("uffd");
	uint64_t id;
	memwatch_region_options_init(&options);
	options.values = MEMWATCH_VALUES_HASH;
	options.max_rate = 0.01;
	OK(memwatch_region_add(watcher, memory, 100, &options, &id));
	for (uint8_t i = 0; i < 3; i++) { /* the first goes out by itself */
		poke(memory + 10, i % 2 ? 2 : 1);
		let_pass(watcher, id, i + 1U);
	}
	CHECK_EQ(newest(watcher), 1);
	CHECK_EQ(info_of(watcher, id).ledger.unchanged, info_of(watcher, id).ledger.detected - 2);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

static uint64_t add_judged(memwatch *watcher, void *address, size_t size_bytes)
{
	struct memwatch_region_options options;
	uint64_t id;
	memwatch_region_options_init(&options);
	options.format = "B";
	options.when = MEMWATCH_WHEN_GT;
	options.low = 100;
	options.max_rate = 0.01;
	OK(memwatch_region_add(watcher, address, size_bytes, &options, &id));
	return id;
}

/* While an event is held back a change comes that `when` filters: the event's version is what the event tells. */
TEST(a_version_is_what_its_event_tells)
{
	static const uint8_t values[] = { 101, 102, 5, 6 };
	uint8_t *memory = map_pages(1), version = 0;
	memwatch *watcher = open_backend("uffd");
	uint64_t id = add_judged(watcher, memory, 1);
	for (unsigned i = 0; i < 4; i++) {
		poke(memory, values[i]);
		let_pass(watcher, id, i + 1);
	}
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK_EQ(event->seq, 2);
	CHECK_EQ(event->new_value[0], 102);
	OK(memwatch_version_read(watcher, id, 2, &version, 1));
	CHECK_EQ(version, 102);
	OK(memwatch_version_read(watcher, id, 1, &version, 1));
	CHECK_EQ(version, 101);
	OK(memwatch_version_read(watcher, id, 0, &version, 1));
	CHECK_EQ(version, 0);
	OK(memwatch_region_read(watcher, id, &version, 1));
	CHECK_EQ(version, 6);
	check_ledgers(watcher);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

/* What was filtered between two changes that become one event is on the way from its old value to the new one. */
TEST(a_merged_event_tells_what_was_filtered_on_the_way)
{
	static const uint8_t writes[][2] = { { 10, 101 }, { 20, 102 }, { 30, 5 }, { 31, 6 }, { 40, 103 }, { 50, 7 } };
	uint8_t *memory = map_pages(4);
	memwatch *watcher = open_backend("uffd");
	uint64_t id = add_judged(watcher, memory, 4 * PAGE);
	for (unsigned i = 0; i < 6; i++) {
		poke(memory + writes[i][0], writes[i][1]);
		let_pass(watcher, id, i + 1);
	}
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK_EQ(event->seq, 2);
	CHECK_EQ(event->n_changes, 3);
	CHECK_EQ(event->changes[1].offset, 30);
	CHECK_EQ(event->changes[1].size_bytes, 2);
	CHECK_EQ(event->changed_bytes, 4);
	CHECK_EQ(event->new_preview[30], 5);
	CHECK_EQ(event->new_preview[50], 0);
	check_ledgers(watcher);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

/* The last of too many ranges spans bytes that did not change. */
TEST(merged_bytes_are_not_more_than_changed)
{
	static uint8_t mask[4 * PAGE];
	uint8_t *memory = map_pages(4);
	memwatch *watcher = open_backend("uffd");
	uint64_t id = add_limited(watcher, memory, 4 * PAGE), n = 0;
	poke(memory, 1);
	memwatch_event_unref(last_event(watcher, id));
	for (unsigned i = 1; i <= 100; i++) {
		poke(memory + 2 * i, 3);
		mask[2 * i] = 1;
	}
	let_pass(watcher, id, 2);
	memset(memory + 66, 9, 60);
	memset(mask + 66, 1, 60);
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK_OP(event->merged, >=, 1);
	for (unsigned i = 0; i < sizeof mask; i++)
		n += mask[i];
	CHECK_OP(event->changed_bytes, <=, n);
	CHECK_OP(event->changed_bytes, >=, 100);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}
