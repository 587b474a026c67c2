/*
 * test_events.c -- what the consumers get: the log, cursors, sinks, the callback, posted events.
 */
#include "watching.h"

#include <memwatch/reader.h>

/* --- the log ---------------------------------------------------------------------------------------------------- */

static void change(memwatch *watcher, uint8_t *memory, int n)
{
	for (int i = 0; i < n; i++) {
		poke(memory, (uint8_t)(*memory + 1));
		flush(watcher);
	}
}

TEST(the_log_is_read_by_cursor)
{
	const struct memwatch_event *events[4];
	struct memwatch_cursor cursor;
	uint8_t *memory = map_pages(1);
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	add_region(watcher, memory, 1, "a");
	CHECK_EQ(memwatch_events_read(watcher, 0, events, 4, &cursor), 0);
	CHECK_EQ(cursor.oldest, cursor.newest + 1);
	CHECK_EQ(cursor.missed, 0);
	CHECK_EQ(cursor.next, 0);
	change(watcher, memory, 10);
	uint64_t seq = 0;
	for (int expected = 4; expected >= 0; expected -= expected == 4 && seq < 8 ? 0 : 2) {
		int n = memwatch_events_read(watcher, cursor.next, events, 4, &cursor);
		CHECK_EQ(n, expected);
		CHECK_EQ(cursor.oldest, 1);
		CHECK_EQ(cursor.newest, 10);
		for (int i = 0; i < n; i++) {
			CHECK_EQ(events[i]->seq, ++seq);
			CHECK_EQ(events[i]->new_value[0], seq);
			CHECK_EQ(events[i]->old_value[0], seq - 1);
			memwatch_event_unref(events[i]);
		}
		CHECK_EQ(cursor.next, seq);
	}
	CHECK_EQ(seq, 10);
	memwatch_close(watcher);
}

TEST(a_full_log_drops_the_oldest_and_says_so)
{
	const struct memwatch_event *events[20];
	struct memwatch_options options;
	struct memwatch_cursor cursor;
	uint8_t *memory = map_pages(1);
	memwatch_options_init(&options);
	options.event_capacity = 8;
	memwatch *watcher = open_with(&options);
	add_region(watcher, memory, 1, "a");
	change(watcher, memory, 30);
	int n = memwatch_events_read(watcher, 5, events, 20, &cursor);
	CHECK_OP(n, >=, 1);
	CHECK_OP(n, <=, 8);
	CHECK_EQ(cursor.newest, 30);
	CHECK_EQ(cursor.oldest, 30 - n + 1);
	CHECK_EQ(cursor.missed, cursor.oldest - 6);
	CHECK_EQ(events[n - 1]->seq, 30);
	for (int i = 0; i < n; i++)
		memwatch_event_unref(events[i]);
	CHECK_EQ(stats_of(watcher).events_evicted, 30 - n);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(the_log_is_bounded_in_bytes)
{
	struct memwatch_options options;
	uint8_t *memory = map_pages(1);
	memwatch_options_init(&options);
	options.event_budget = 64 << 10;
	memwatch *watcher = open_with(&options);
	add_region(watcher, memory, PAGE, "a");
	change(watcher, memory, 100);
	struct memwatch_stats stats = stats_of(watcher);
	CHECK_OP(stats.events_bytes, <=, 64 << 10);
	CHECK_OP(stats.events_kept, >=, 1);
	CHECK_EQ(stats.events_evicted + stats.events_kept, 100);
	memwatch_close(watcher);
}

TEST(an_event_outlives_the_watcher)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	add_region(watcher, memory, 10, "lasting");
	poke(memory, 1);
	const struct memwatch_event *event = only_event(watcher, 0);
	memwatch_event_ref(event);
	memwatch_event_unref(event);
	memwatch_close(watcher);
	munmap(memory, PAGE);
	CHECK_TEXT(event->name, "lasting");
	CHECK_EQ(event->new_value[0], 1);
	CHECK(event->where.thread_name);
	memwatch_event_unref(event);
}

struct waiter {
	memwatch *watcher;
	_Atomic int result;
};

static void *wait_for_ever(void *arg)
{
	struct waiter *waiter = arg;
	atomic_store(&waiter->result, memwatch_events_wait(waiter->watcher, 0, -1));
	return NULL;
}

TEST(waiting_ends_by_an_event_a_timeout_or_the_end)
{
	uint8_t *memory = map_pages(1);
	struct waiter waiter = { .result = 5 };
	pthread_t thread;
	OK(memwatch_open(NULL, &waiter.watcher));
	add_region(waiter.watcher, memory, 1, "a");
	double start = harness_now_s();
	CHECK_EQ(memwatch_events_wait(waiter.watcher, 0, 50), 0);
	CHECK(harness_now_s() - start >= 0.049);
	CHECK_EQ(memwatch_events_wait(waiter.watcher, 0, 0), 0);
	CHECK(pthread_create(&thread, NULL, wait_for_ever, &waiter) == 0);
	usleep(10000);
	CHECK_EQ(waiter.result, 5);
	poke(memory, 1); /* nobody flushes: the sweep finds it */
	pthread_join(thread, NULL);
	CHECK_EQ(waiter.result, 1);
	CHECK_EQ(memwatch_events_wait(waiter.watcher, 0, -1), 1);
	struct waiter closed = { .watcher = waiter.watcher, .result = 5 };
	memwatch_event_unref(only_event(waiter.watcher, 0));
	memwatch_close(waiter.watcher);
	(void)closed;
}

struct reader {
	memwatch_sink *sink;
	_Atomic uint64_t n_read;
	int result;
};

static void *read_to_the_end(void *arg)
{
	struct reader *reader = arg;
	const struct memwatch_event *events[16];
	int n;
	while ((n = memwatch_sink_read(reader->sink, events, 16, -1)) >= 0)
		for (int i = 0; i < n; i++) {
			memwatch_event_unref(events[i]);
			atomic_fetch_add(&reader->n_read, 1);
		}
	reader->result = n;
	return NULL;
}

TEST(a_sink_that_waits_hears_of_the_end)
{
	uint8_t *memory = map_pages(1);
	struct reader reader = { .n_read = 0 };
	memwatch *watcher;
	pthread_t thread;
	OK(memwatch_open(NULL, &watcher));
	add_region(watcher, memory, 1, "a");
	change(watcher, memory, 3); /* before it */
	OK(memwatch_sink_open(watcher, "test", &reader.sink));
	CHECK(pthread_create(&thread, NULL, read_to_the_end, &reader) == 0);
	change(watcher, memory, 20);
	WAIT_FOR(atomic_load(&reader.n_read) == 20);
	usleep(200 * 1000); /* it comes back and waits */
	memwatch_close(watcher);
	pthread_join(thread, NULL);
	CHECK_EQ(reader.result, -EPIPE);
}

/* The seq of the first event that a sink reads, when nobody will write any more. */
static uint64_t first_read(memwatch_sink *sink, int n_expected)
{
	const struct memwatch_event *events[64];
	CHECK_EQ(memwatch_sink_read(sink, events, 64, -1), n_expected);
	uint64_t seq = events[0]->seq;
	for (int i = 0; i < n_expected; i++)
		memwatch_event_unref(events[i]);
	CHECK_EQ(memwatch_sink_read(sink, events, 64, -1), -EPIPE);
	return seq;
}

TEST(a_sink_reads_from_where_it_is_told_and_after_the_close)
{
	struct memwatch_sink_info infos[2];
	uint8_t *memory = map_pages(1);
	memwatch_sink *all, *later;
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	add_region(watcher, memory, 1, "a");
	change(watcher, memory, 5);
	OK(memwatch_sink_open(watcher, "all", &all));
	OK(memwatch_sink_open(watcher, "later", &later));
	memwatch_sink_seek(all, 0);
	memwatch_sink_seek(later, 6);
	CHECK_EQ(memwatch_sink_list(watcher, infos, 2), 2);
	CHECK_EQ(infos[0].lag + infos[1].lag, 5); /* all of them, none */
	change(watcher, memory, 3);
	memwatch_close(watcher);
	CHECK_EQ(first_read(all, 8), 1);
	CHECK_EQ(first_read(later, 2), 7);
	memwatch_sink_close(all);
	memwatch_sink_close(later);
}

TEST(sinks_have_accounts_of_their_own)
{
	const struct memwatch_event *events[64];
	struct memwatch_sink_info infos[4];
	struct memwatch_options options;
	uint8_t *memory = map_pages(1);
	memwatch_sink *fast, *slow;
	memwatch_options_init(&options);
	options.event_capacity = 8;
	memwatch *watcher = open_with(&options);
	add_region(watcher, memory, 1, "a");
	OK(memwatch_sink_open(watcher, "fast", &fast));
	OK(memwatch_sink_open(watcher, "slow", &slow));
	uint64_t n_fast = 0;
	for (int i = 0; i < 30; i++) {
		change(watcher, memory, 1);
		int n = memwatch_sink_read(fast, events, 64, 0);
		OK(n);
		for (int k = 0; k < n; k++, n_fast++)
			memwatch_event_unref(events[k]);
		memwatch_sink_report(fast, 1000 * 1000, i % 10 == 0);
	}
	int n_slow = memwatch_sink_read(slow, events, 64, 0);
	for (int k = 0; k < n_slow; k++)
		memwatch_event_unref(events[k]);
	CHECK_EQ(n_fast, 30);
	CHECK_EQ(memwatch_sink_list(watcher, infos, 4), 2);
	int f = strcmp(infos[0].name, "fast") == 0 ? 0 : 1;
	CHECK_TEXT(infos[f].name, "fast");
	CHECK_TEXT(infos[1 - f].name, "slow");
	CHECK_EQ(infos[f].received, 30);
	CHECK_EQ(infos[f].missed, 0);
	CHECK_EQ(infos[f].failed, 3);
	CHECK_EQ(infos[f].duration.count, 30);
	CHECK_EQ(infos[f].duration.sum_ns, 30 * 1000 * 1000);
	CHECK_EQ(infos[1 - f].received, n_slow);
	CHECK_EQ(infos[1 - f].missed, 30 - n_slow);
	CHECK_EQ(infos[1 - f].lag, 0);
	memwatch_sink_close(slow);
	CHECK_EQ(memwatch_sink_list(watcher, infos, 4), 1);
	memwatch_sink_close(fast);
	memwatch_sink_close(NULL);
	memwatch_close(watcher);
}

/* --- the callback ----------------------------------------------------------------------------------------------- */

struct calls {
	_Atomic uint64_t n, last_seq, last_value;
	_Atomic bool hold;
	pthread_t thread;
};

static void on_change(const struct memwatch_event *event, void *arg)
{
	struct calls *calls = arg;
	calls->thread = pthread_self();
	atomic_store(&calls->last_seq, event->seq);
	atomic_store(&calls->last_value, event->new_value ? event->new_value[0] : 0);
	atomic_fetch_add(&calls->n, 1);
	while (atomic_load(&calls->hold))
		usleep(1000);
}

TEST(the_callback_gets_every_event_in_order)
{
	uint8_t *memory = map_pages(1);
	struct calls calls = { .n = 0 };
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	add_region(watcher, memory, 1, "a");
	change(watcher, memory, 1); /* nobody listens yet */
	OK(memwatch_callback_set(watcher, on_change, &calls));
	for (uint64_t i = 2; i < 50; i++) {
		change(watcher, memory, 1);
		WAIT_FOR(atomic_load(&calls.n) == i - 1);
		CHECK_EQ(calls.last_seq, i);
	}
	CHECK(!pthread_equal(calls.thread, pthread_self()));
	OK(memwatch_callback_set(watcher, NULL, NULL));
	change(watcher, memory, 5);
	memwatch_close(watcher);
	CHECK_EQ(calls.n, 48);
}

TEST(a_slow_callback_delays_callbacks_only)
{
	struct memwatch_sink_info infos[2];
	struct memwatch_options options;
	uint8_t *memory = map_pages(1);
	struct calls calls = { .hold = true };
	memwatch_options_init(&options);
	options.event_capacity = 8;
	memwatch *watcher = open_with(&options);
	add_region(watcher, memory, 1, "a");
	OK(memwatch_callback_set(watcher, on_change, &calls));
	change(watcher, memory, 1);
	WAIT_FOR(atomic_load(&calls.n) == 1);
	change(watcher, memory, 99); /* every flush returns although the callback hangs */
	CHECK_EQ(newest(watcher), 100);
	CHECK_EQ(calls.n, 1);
	atomic_store(&calls.hold, false);
	WAIT_FOR(atomic_load(&calls.last_seq) == 100); /* the newest value still arrives */
	CHECK_EQ(calls.last_value, 100);
	WAIT_FOR(memwatch_sink_list(watcher, infos, 2) == 1 && infos[0].received + infos[0].missed == 100);
	CHECK_OP(infos[0].missed, >=, 90);
	memwatch_close(watcher);
}

TEST(removing_the_callback_waits_for_the_call_under_way)
{
	uint8_t *memory = map_pages(1);
	struct calls *calls = calloc(1, sizeof *calls);
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	add_region(watcher, memory, 1, "a");
	for (int i = 0; i < 100; i++) {
		OK(memwatch_callback_set(watcher, on_change, calls));
		change(watcher, memory, 1);
		OK(memwatch_callback_set(watcher, NULL, NULL));
		memset(calls, 0, sizeof *calls); /* nobody uses it now */
	}
	memwatch_close(watcher);
	free(calls);
}

/* --- posted events ---------------------------------------------------------------------------------------------- */

TEST(a_posted_event_is_an_event)
{
	const struct memwatch_frame frames[] = { { "/src/a.py", "outer.inner", 12 }, { "/src/b.py", "main", 40 } };
	char file[] = "/src/a.py";
	memwatch *watcher;
	uint64_t seq = 0;
	OK(memwatch_open(NULL, &watcher));
	uint64_t id = add_external(watcher, "x");
	CHECK_TEXT(info_of(watcher, id).backend, "external");
	struct memwatch_frame copied[2] = { frames[0], frames[1] };
	copied[0].file = file;
	struct memwatch_post post = { .struct_bytes = sizeof post,
				      .old_value = "1",
				      .old_bytes = 1,
				      .new_value = "'two'",
				      .new_bytes = 5,
				      .attribution = MEMWATCH_ATTRIBUTION_EXACT,
				      .thread_id = 77,
				      .thread_name = "worker",
				      .frames = copied,
				      .n_frames = 2,
				      .backend = "trace" };
	OK(memwatch_event_post(watcher, id, &post, &seq));
	memset(file, 'x', sizeof file - 1);
	CHECK_EQ(seq, 1);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_TEXT(event->name, "x");
	CHECK_TEXT(event->backend, "trace");
	CHECK_EQ(event->region_id, id);
	CHECK(memcmp(event->new_preview, "'two'", 5) == 0);
	CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_EXACT);
	CHECK_EQ(event->where.n_frames, 2);
	CHECK_TEXT(event->where.frames[0].file, "/src/a.py");
	CHECK_TEXT(event->where.frames[0].function, "outer.inner");
	CHECK_EQ(event->where.frames[1].line, 40);
	CHECK_EQ(event->where.thread_id, 77);
	CHECK_TEXT(event->where.thread_name, "worker");
	CHECK_OP(event->time_ns, >, 0);
	memwatch_event_unref(event);
	CHECK_EQ(info_of(watcher, id).ledger.delivered, 1);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(bad_posts_are_refused)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher;
	struct memwatch_post post = { .struct_bytes = sizeof post };
	OK(memwatch_open(NULL, &watcher));
	uint64_t real = add_region(watcher, memory, 10, "real");
	uint64_t id = add_external(watcher, "x");
	FAILS(memwatch_event_post(watcher, id + 1, &post, NULL), ENOENT);
	FAILS(memwatch_event_post(watcher, real, &post, NULL), EINVAL);
	post.struct_bytes = 0;
	FAILS(memwatch_event_post(watcher, id, &post, NULL), EINVAL);
	post.struct_bytes = sizeof post;
	post.n_frames = 3;
	FAILS(memwatch_event_post(watcher, id, &post, NULL), EINVAL);
	post.n_frames = 0;
	OK(memwatch_event_post(watcher, id, &post, NULL)); /* neither old nor new: allowed */
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	options.flags = MEMWATCH_REGION_EXTERNAL;
	FAILS(memwatch_region_add(watcher, memory, 10, &options, NULL), EINVAL);
	CHECK_EQ(newest(watcher), 1);
	memwatch_close(watcher);
}

static void *post_many(void *arg)
{
	memwatch *watcher = arg;
	struct memwatch_post post = { .struct_bytes = sizeof post, .new_value = "1", .new_bytes = 1 };
	uint64_t id = 0, before = 0, seq;
	OK(memwatch_region_find(watcher, "x", &id));
	for (int i = 0; i < 2000; i++) {
		OK(memwatch_event_post(watcher, id, &post, &seq));
		CHECK_OP(seq, >, before);
		before = seq;
	}
	return NULL;
}

TEST(posts_from_many_threads_number_without_holes)
{
	const struct memwatch_event *events[100];
	struct memwatch_cursor cursor = { .next = 0 };
	pthread_t threads[4];
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	add_external(watcher, "x");
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, post_many, watcher) == 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	uint64_t seq = 0;
	for (int n; (n = memwatch_events_read(watcher, cursor.next, events, 100, &cursor)) > 0;)
		for (int i = 0; i < n; i++) {
			CHECK_EQ(events[i]->seq, ++seq);
			memwatch_event_unref(events[i]);
		}
	CHECK_EQ(seq, 8000);
	CHECK_EQ(cursor.missed, 0);
	check_ledgers(watcher);
	memwatch_close(watcher);
}
