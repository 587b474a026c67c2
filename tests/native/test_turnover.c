/*
 * test_turnover.c -- regions come and go, in the middle of passes, over memory that another region has and that is
 * written all the time: what is told of the one that stays leads from event to event, and at the end to what memory
 * holds.
 */
#include "kinds.h"

#include <memwatch/reader.h>

enum { SIZE = 8 * PAGE };

static struct {
	memwatch *watcher, *other;
	struct kind kind;
	uint64_t stays;
	uint8_t mirror[SIZE];
	struct memwatch_cursor cursor;
} turnover;

static atomic_bool enough;

static void *write_always(void *arg)
{
	uint64_t state = 4711;
	(void)arg;
	while (!atomic_load(&enough))
		write_some(&turnover.kind, turnover.kind.start, &state);
	return NULL;
}

static void *come_and_go(void *watcher)
{
	uint64_t state = 99, id;
	struct memwatch_region_options options;
	while (!atomic_load(&enough)) {
		size_t at = shuffle(&state) % SIZE, n = shuffle(&state) % (SIZE - at) + 1;
		memwatch_region_options_init(&options);
		options.max_rate = shuffle(&state) % 2 ? 100 : 0;
		options.flags = shuffle(&state) % 4 ? 0 : MEMWATCH_REGION_HASHED;
		options.backend = shuffle(&state) % 3 ? NULL : "poll";
		OK(memwatch_region_add(watcher, turnover.kind.start + at, n, &options, &id));
		if (shuffle(&state) % 2)
			usleep((useconds_t)(shuffle(&state) % 3000));
		OK(memwatch_region_remove(watcher, id));
	}
	return NULL;
}

static void check_ranges(const struct memwatch_event *event)
{
	for (uint32_t i = 0; i < event->n_changes; i++) {
		const struct memwatch_range *range = &event->changes[i];
		CHECK(!i || range->offset > range[-1].offset + range[-1].size_bytes);
		CHECK_OP(range->offset + range->size_bytes, <=, event->size_bytes);
	}
}

static void apply(const struct memwatch_event *event)
{
	uint64_t run[2];
	CHECK(event->patch);
	for (uint64_t at = 0; at < event->patch_bytes; at += sizeof run + run[1]) {
		memcpy(run, event->patch + at, sizeof run);
		CHECK(memcmp(turnover.mirror + run[0], event->patch_old + at + sizeof run, run[1]) == 0);
		memcpy(turnover.mirror + run[0], event->patch + at + sizeof run, run[1]);
	}
}

static void follow(void)
{
	const struct memwatch_event *event;
	uint64_t since = turnover.cursor.next;
	for (; memwatch_events_read(turnover.watcher, since, &event, 1, &turnover.cursor) == 1; since++) {
		CHECK_EQ(event->seq, since + 1);
		CHECK_EQ(event->kind, MEMWATCH_EVENT_CHANGE);
		check_ranges(event);
		if (event->region_id == turnover.stays)
			apply(event);
		memwatch_event_unref(event);
	}
}

static void check_rest(void)
{
	static uint8_t loaded[SIZE];
	flush(turnover.watcher);
	follow();
	CHECK(memcmp(turnover.mirror, turnover.kind.start, SIZE) == 0);
	OK(memwatch_version_read(turnover.watcher, turnover.stays, UINT64_MAX, loaded, SIZE));
	CHECK(memcmp(loaded, turnover.mirror, SIZE) == 0);
	check_ledgers(turnover.watcher);
	check_ledgers(turnover.other);
	OK(memwatch_region_remove(turnover.watcher, turnover.stays));
	CHECK_EQ(stats_of(turnover.watcher).armed_pages, 0);
	CHECK_EQ(stats_of(turnover.watcher).history.bytes, 0);
	CHECK_EQ(stats_of(turnover.watcher).ledger.dropped, 0);
}

static void watch_turnover(const char *backend, enum memory memory)
{
	struct memwatch_options options;
	pthread_t threads[3];
	turnover.kind = (struct kind){ .name = "stays", .memory = memory, .size_bytes = SIZE };
	map_kind(&turnover.kind);
	memwatch_options_init(&options);
	options.backend = backend;
	options.patches = 1;
	turnover.watcher = open_with(&options);
	turnover.other = open_with(&options);
	turnover.stays = add_region(turnover.watcher, turnover.kind.start, SIZE, "stays");
	CHECK_EQ(pthread_create(&threads[0], NULL, write_always, NULL), 0);
	CHECK_EQ(pthread_create(&threads[1], NULL, come_and_go, turnover.watcher), 0);
	CHECK_EQ(pthread_create(&threads[2], NULL, come_and_go, turnover.other), 0);
	for (unsigned i = 0, n = (unsigned)of_load(200); i < n; i++) {
		if (i % 8 == 5) {
			memwatch_threads_stop();
			OK(memwatch_threads_start());
		}
		flush(turnover.watcher);
		follow();
	}
	atomic_store(&enough, true);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	check_rest();
	OK(memwatch_close(turnover.other));
	OK(memwatch_close(turnover.watcher));
}

BACKEND_TEST(private_memory)
{
	watch_turnover(backend, PRIVATE);
}

BACKEND_TEST(shared_memory)
{
	watch_turnover(backend, SHARED);
}
