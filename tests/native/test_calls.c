/* What every call does where it is not meant to be made, and what a callback may do: the table CALLS in memwatch.h. */
#include "watching.h"

#include <memwatch/exporter.h>
#include <memwatch/reader.h>
#include <memwatch/recorder.h>

#include <sys/stat.h>

/* --- every call, with a watcher that is none --- */

static uint8_t place[4096];

#define PLACE ((void *)place)

#define REFUSED(call)                                                                                                  \
	do {                                                                                                           \
		long long refused_result = (call);                                                                     \
		if (refused_result != expected)                                                                        \
			FAIL("%s gives %lld, not %d", #call, refused_result, expected);                                \
	} while (0)

static void refuses_all(memwatch *watcher, int expected)
{
	static const struct memwatch_post post = { .struct_bytes = sizeof post };
	struct memwatch_recorder_options recorder_options;
	memwatch_recorder_options_init(&recorder_options);
	recorder_options.path = "/dev/null/never";
	REFUSED(memwatch_flush(watcher, 1000));
	REFUSED(memwatch_region_add(watcher, place, 8, NULL, NULL));
	REFUSED(memwatch_region_find(watcher, "x", PLACE));
	REFUSED(memwatch_region_read(watcher, 1, place, 8));
	REFUSED(memwatch_region_snapshot(watcher, 1, place, 8, NULL));
	REFUSED(memwatch_region_info_get(watcher, 1, PLACE));
	REFUSED(memwatch_region_summary(watcher, 1, PLACE));
	REFUSED(memwatch_region_sample_list(watcher, PLACE, PLACE, 0));
	REFUSED(memwatch_events_wait(watcher, 0, 0));
	REFUSED(memwatch_events_wait_or_wake(watcher, 0, 0, NULL));
	REFUSED(memwatch_sink_list(watcher, PLACE, 1));
	REFUSED(memwatch_callback_set(watcher, NULL, NULL));
	REFUSED(memwatch_external_set(watcher, 1, PLACE));
	REFUSED(memwatch_load(watcher, "00000000000000010000000000000001", place, 8));
	REFUSED(memwatch_key_known(watcher, "00000000000000010000000000000001"));
	REFUSED(memwatch_history_read(watcher, 1, 0, PLACE, 1));
	REFUSED(memwatch_version_read(watcher, 1, 0, place, 8));
	REFUSED(memwatch_version_at(watcher, 1, 0, NULL));
	REFUSED(memwatch_blame(watcher, 1, 0, 8, PLACE, 1));
	REFUSED(memwatch_stats_get(watcher, PLACE));
	REFUSED(memwatch_exporter_open(watcher, NULL, PLACE));
	REFUSED(memwatch_recorder_open(watcher, &recorder_options, PLACE));
	CHECK_EQ(memwatch_epoch(watcher), 0);
	memwatch_events_wake(watcher, PLACE);
	if (watcher) {
		CHECK_EQ(memwatch_backend_list(watcher, PLACE, 1), expected);
		CHECK_EQ(memwatch_close(watcher), expected);
	}
}

TEST(a_watcher_that_is_null)
{
	refuses_all(NULL, -EINVAL);
	CHECK_EQ(memwatch_close(NULL), 0);
}

TEST(a_watcher_that_was_closed)
{
	for (int i = 0; i < 3; i++) { /* its place is not the next one's */
		memwatch *watcher = open_backend("auto");
		OK(memwatch_close(watcher));
		refuses_all(watcher, -EBADF);
		CHECK(strstr(memwatch_error(), "closed"));
	}
}

TEST(a_pointer_that_is_no_watcher)
{
	static long no_watcher[512];
	refuses_all((memwatch *)no_watcher, -EINVAL);
	memwatch *watcher = open_backend("auto");
	refuses_all((memwatch *)no_watcher, -EINVAL);
	refuses_all((memwatch *)((char *)watcher + 8), -EINVAL);
	OK(memwatch_close(watcher));
}

TEST(pointers_that_are_null)
{
	memwatch *watcher = open_backend("auto");
	int value[2] = { 0 };
	uint64_t id = add_region(watcher, value, sizeof value, "value");
	FAILS(memwatch_open(NULL, NULL), EINVAL);
	memwatch_options_init(NULL);
	memwatch_region_options_init(NULL);
	FAILS(memwatch_region_find(watcher, NULL, &id), EINVAL);
	OK(memwatch_region_find(watcher, "value", NULL));
	FAILS(memwatch_region_read(watcher, id, NULL, 8), EINVAL);
	CHECK_EQ(memwatch_region_read(watcher, id, NULL, 0), 0);
	CHECK_EQ(memwatch_region_snapshot(watcher, id, place, 8, NULL), 8);
	FAILS(memwatch_region_list(watcher, NULL, PLACE, 1), EINVAL);
	FAILS(memwatch_region_list(watcher, &id, NULL, 1), EINVAL);
	OK(memwatch_region_find(watcher, "value", &id));
	FAILS(memwatch_region_sample_list(watcher, NULL, PLACE, 1), EINVAL);
	FAILS(memwatch_region_info_get(watcher, id, NULL), EINVAL);
	FAILS(memwatch_region_summary(watcher, id, NULL), EINVAL);
	FAILS(memwatch_stats_get(watcher, NULL), EINVAL);
	FAILS(memwatch_backend_list(watcher, NULL, 1), EINVAL);
	CHECK(memwatch_backend_list(watcher, NULL, 0) > 0);
	FAILS(memwatch_events_read(watcher, 0, NULL, 1, NULL), EINVAL);
	FAILS(memwatch_sink_open(watcher, NULL, PLACE), EINVAL);
	FAILS(memwatch_sink_open(watcher, "x", NULL), EINVAL);
	FAILS(memwatch_sink_list(watcher, NULL, 1), EINVAL);
	FAILS(memwatch_sink_read(NULL, PLACE, 1, 0), EINVAL);
	memwatch_sink_wake(NULL);
	memwatch_sink_report(NULL, 0, 0);
	memwatch_sink_seek(NULL, 0);
	memwatch_sink_status_set(NULL, NULL);
	memwatch_sink_close(NULL);
	FAILS(memwatch_event_post(watcher, id, NULL, NULL), EINVAL);
	FAILS(memwatch_external_set(watcher, id, NULL), EINVAL);
	FAILS(memwatch_load(watcher, NULL, place, 8), EINVAL);
	FAILS(memwatch_key_known(watcher, NULL), EINVAL);
	FAILS(memwatch_history_read(watcher, id, 0, NULL, 1), EINVAL);
	FAILS(memwatch_version_read(watcher, id, 0, NULL, 8), EINVAL);
	OK(memwatch_version_at(watcher, id, UINT64_MAX, NULL));
	FAILS(memwatch_blame(watcher, id, 0, 8, NULL, 1), EINVAL);
	FAILS(memwatch_blame(watcher, id, 0, 0, PLACE, 1), EINVAL);
	FAILS(memwatch_blame(watcher, id, 0, 1 << 30, PLACE, 1), EINVAL);
	memwatch_event_ref(NULL);
	memwatch_event_unref(NULL);
	memwatch_events_wake(watcher, NULL);
	CHECK_EQ(memwatch_number_read("d", 8, NULL, PLACE), MEMWATCH_NUMBER_NONE);
	CHECK_EQ(memwatch_exporter_open(watcher, NULL, NULL), -EINVAL);
	memwatch_exporter_options_init(NULL);
	memwatch_exporter_close(NULL);
	CHECK_EQ(memwatch_exporter_port(NULL), 0);
	CHECK_TEXT(memwatch_exporter_url(NULL), "");
	CHECK_TEXT(memwatch_exporter_token(NULL), "");
	CHECK_TEXT(memwatch_exporter_discovery_file(NULL), "");
	memwatch_recorder_options_init(NULL);
	CHECK_EQ(memwatch_recorder_open(watcher, NULL, PLACE), -EINVAL);
	CHECK_EQ(memwatch_recorder_flush(NULL, 0), -EINVAL);
	CHECK_EQ(memwatch_recorder_stats_get(NULL, PLACE), -EINVAL);
	memwatch_recorder_close(NULL);
	OK(memwatch_close(watcher));
}

/* --- calls without a watcher --- */

TEST(calls_that_need_no_watcher)
{
	static const uint64_t given[2] = { sizeof given, 7 };
	uint64_t ours[2] = { 0 };
	char text[16];
	CHECK_TEXT(memwatch_version(), MEMWATCH_VERSION);
	CHECK_TEXT(memwatch_attribution_text(MEMWATCH_ATTRIBUTION_PAGE), "page");
	CHECK_TEXT(memwatch_attribution_text((enum memwatch_attribution)99), "none");
	CHECK_TEXT(memwatch_reason_text(MEMWATCH_REASON_KERNEL), "kernel");
	CHECK_TEXT(memwatch_reason_text((enum memwatch_reason)99), "unknown");
	CHECK_TEXT(memwatch_drop_text(MEMWATCH_DROP_RING_FULL), "ring_full");
	CHECK_TEXT(memwatch_drop_text((enum memwatch_drop)99), "");
	CHECK(memwatch_histogram_bound(1) > memwatch_histogram_bound(0));
	CHECK(memwatch_histogram_bound(UINT32_MAX) == 0);
	FAILS(memwatch_event_text(NULL, text, sizeof text), EINVAL);
	CHECK_EQ(memwatch_text_clean(NULL, text, sizeof text), 0);
	CHECK_TEXT(text, "");
	CHECK_EQ(memwatch_utf8_length("", 0), 0);
	CHECK_EQ(memwatch_location_intern("f.c", 3, "f", 1, 1, 0), 0); /* there is no watcher to intern it for */
	CHECK_EQ(memwatch_struct_read(ours, sizeof ours, NULL, 16), -EINVAL);
	CHECK_EQ(memwatch_struct_read(ours, sizeof ours, given, sizeof given), 0);
	CHECK_EQ(ours[1], 7);
	memwatch_struct_write(ours, sizeof ours[0], given + 1, sizeof *given);
	CHECK_EQ(ours[1], 7); /* no byte behind the room that there was */
	FAILS(memwatch_exporter_open(NULL, NULL, NULL), EINVAL);
	CHECK(strlen(memwatch_exporter_error()) > 10);
	CHECK_EQ(memwatch_recorder_open(NULL, NULL, NULL), -EINVAL);
	CHECK(strlen(memwatch_recorder_error()) > 10);
	memwatch_frame_hook_set(NULL);
	memwatch_threads_stop();
	OK(memwatch_threads_start());
}

static nlink_t tasks_of_process(void)
{
	struct stat tasks;
	OK(stat("/proc/self/task", &tasks));
	return tasks.st_nlink;
}

/* A fork right after a stop, and that right after a start: Python would warn of threads that it counts. */
TEST(threads_that_were_stopped_are_counted_no_more)
{
	memwatch *watcher = open_backend("auto");
	memwatch_threads_stop();
	nlink_t others = tasks_of_process(); /* a sanitizer's */
	for (int i = 0; i < 5000; i++) {
		OK(memwatch_threads_start());
		memwatch_threads_stop();
		CHECK_OP(tasks_of_process(), <=, others);
	}
	OK(memwatch_threads_start());
	OK(memwatch_close(watcher));
}

TEST(a_thread_that_serves_posts_an_event_while_ours_are_stopped)
{
	const struct memwatch_post post = { .struct_bytes = sizeof post, .new_value = "x", .new_bytes = 1 };
	uint64_t seq;
	memwatch *watcher = open_backend("auto");
	uint64_t id = add_external(watcher, "external");
	memwatch_thread_own();
	memwatch_threads_stop();
	OK(memwatch_event_post(watcher, id, &post, &seq));
	CHECK_EQ(seq, 1);
	OK(memwatch_threads_start());
	flush(watcher);
	OK(memwatch_close(watcher));
}

/* --- callbacks --- */

static memwatch *own, *other;
static int value, second;
static _Atomic int n_first, n_second, result = 1;

static void on_second(const struct memwatch_event *event, void *arg)
{
	CHECK_TEXT(event->name, "value");
	CHECK(arg == &second);
	n_second++;
}

static void unset_myself(const struct memwatch_event *event, void *arg)
{
	(void)event, (void)arg;
	n_first++;
	OK(memwatch_callback_set(own, NULL, NULL));
	result = 0;
}

TEST(a_callback_takes_itself_out)
{
	own = open_backend("auto");
	add_region(own, &value, sizeof value, "value");
	for (int i = 1; i <= 20; i++) {
		struct memwatch_sink_info info;
		OK(memwatch_callback_set(own, unset_myself, NULL));
		value++;
		flush(own);
		WAIT_FOR(n_first == i);
		value++;
		flush(own);
		WAIT_FOR(memwatch_sink_list(own, &info, 1) == 0);
		CHECK_EQ(n_first, i);
	}
	OK(memwatch_close(own));
}

static void replace_myself(const struct memwatch_event *event, void *arg)
{
	(void)event, (void)arg;
	n_first++;
	OK(memwatch_callback_set(own, NULL, NULL));
	OK(memwatch_callback_set(own, on_second, &second));
}

TEST(a_callback_replaces_itself)
{
	own = open_backend("auto");
	add_region(own, &value, sizeof value, "value");
	OK(memwatch_callback_set(own, replace_myself, NULL));
	value = 1;
	flush(own);
	WAIT_FOR(n_first == 1);
	OK(memwatch_callback_set(own, on_second, &second)); /* waits until the first one is out */
	for (int i = 1; i <= 10; i++) {
		value++;
		flush(own);
		WAIT_FOR(n_second == i);
	}
	OK(memwatch_close(own));
	CHECK_EQ(n_first, 1);
}

static void close_myself(const struct memwatch_event *event, void *arg)
{
	(void)event, (void)arg;
	FAILS(memwatch_close(own), EDEADLK);
	FAILS(memwatch_close(own), EDEADLK);
	n_first++;
}

TEST(a_callback_cannot_close_its_own_watcher)
{
	own = open_backend("auto");
	add_region(own, &value, sizeof value, "value");
	OK(memwatch_callback_set(own, close_myself, NULL));
	value = 1;
	flush(own);
	value = 2;
	OK(memwatch_close(own)); /* delivers the second, too */
	CHECK_EQ(n_first, 2);
}

static void do_all(const struct memwatch_event *event, void *arg)
{
	static int mine, theirs;
	const struct memwatch_event *events[4];
	struct memwatch_cursor cursor;
	struct memwatch_blame blame;
	struct memwatch_stats stats;
	memwatch_sink *sink;
	memwatch *another;
	char name[32];
	(void)arg;
	snprintf(name, sizeof name, "mine-%d", n_first);
	uint64_t id = add_region(own, &mine, sizeof mine, name);
	mine++;
	flush(own);
	int n = memwatch_history_read(own, event->region_id, 0, events, 4);
	CHECK(n >= 1);
	while (n)
		memwatch_event_unref(events[--n]);
	CHECK_EQ(memwatch_blame(own, event->region_id, 0, sizeof value, &blame, 1), 1);
	memwatch_event_unref(blame.event);
	CHECK_EQ(memwatch_events_read(own, event->seq - 1, events, 1, &cursor), 1);
	memwatch_event_unref(events[0]);
	CHECK_EQ(memwatch_region_read(own, event->region_id, name, sizeof value), sizeof value);
	OK(memwatch_stats_get(own, &stats));
	OK(memwatch_region_remove(own, id));
	OK(memwatch_sink_open(own, "in a callback", &sink));
	memwatch_sink_close(sink);
	OK(memwatch_open(NULL, &another));
	add_region(another, &theirs, sizeof theirs, "theirs");
	OK(memwatch_callback_set(another, on_second, &second));
	OK(memwatch_callback_set(another, NULL, NULL));
	theirs++;
	OK(memwatch_close(another));
	memwatch_event_ref(event);
	memwatch_event_unref(event);
	n_first++;
}

static void only_value(const struct memwatch_event *event, void *arg)
{
	if (strcmp(event->name, "value") == 0)
		do_all(event, arg);
}

TEST(a_callback_may_call_everything_else)
{
	own = open_backend("auto");
	add_region(own, &value, sizeof value, "value");
	OK(memwatch_callback_set(own, only_value, NULL));
	for (int i = 1; i <= 10; i++) {
		value++;
		flush(own);
		WAIT_FOR(n_first == i);
	}
	OK(memwatch_close(own));
}

/* --- ends, in any order and at the same time --- */

static _Atomic int n_refused, n_closed;

static void close_the_other(const struct memwatch_event *event, void *arg)
{
	memwatch *watcher = arg;
	(void)event;
	n_first++;
	while (n_first < 2)
		usleep(1000);
	int error = memwatch_close(watcher);
	CHECK(error == 0 || error == -EDEADLK);
	n_closed += error == 0;
	n_refused += error == -EDEADLK;
}

TEST(two_callbacks_close_each_other)
{
	own = open_backend("auto");
	other = open_backend("auto");
	add_region(own, &value, sizeof value, "value");
	add_region(other, &second, sizeof second, "second");
	OK(memwatch_callback_set(own, close_the_other, other));
	OK(memwatch_callback_set(other, close_the_other, own));
	value = second = 1;
	WAIT_FOR(n_closed == 1 && n_refused == 1);
	int errors[] = { memwatch_close(own), memwatch_close(other) };
	CHECK((errors[0] == 0 && errors[1] == -EBADF) || (errors[0] == -EBADF && errors[1] == 0));
}

static void *use(void *arg)
{
	struct memwatch_stats stats;
	const struct memwatch_event *event;
	int *n_good = arg, error = 0;
	while (error >= 0) {
		error = memwatch_stats_get(own, &stats);
		if (error >= 0 && memwatch_events_read(own, 0, &event, 1, NULL) == 1)
			memwatch_event_unref(event);
		if (error >= 0)
			error = memwatch_events_wait(own, UINT64_MAX - 1, 1);
		*n_good += error >= 0;
	}
	CHECK(error == -EBADF || error == -EPIPE);
	return NULL;
}

TEST(a_watcher_is_closed_while_others_use_it)
{
	for (int round = 0; round < 10; round++) {
		pthread_t threads[4];
		int n_good[4] = { 0 };
		own = open_backend("auto");
		add_region(own, &value, sizeof value, "value");
		for (int i = 0; i < 4; i++)
			CHECK_EQ(pthread_create(&threads[i], NULL, use, &n_good[i]), 0);
		value++;
		usleep(5000);
		OK(memwatch_close(own));
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
	}
}

enum { WATCHER, EXPORTER, RECORDER, SINK, PARTS };
static const int orders[][PARTS] = { { WATCHER, EXPORTER, RECORDER, SINK },
				     { WATCHER, SINK, RECORDER, EXPORTER },
				     { EXPORTER, WATCHER, SINK, RECORDER },
				     { RECORDER, WATCHER, EXPORTER, SINK },
				     { SINK, RECORDER, EXPORTER, WATCHER } };

TEST(watcher_exporter_recorder_and_sink_end_in_any_order)
{
	char path[] = "/tmp/memwatch-calls-XXXXXX";
	CHECK(mkdtemp(path));
	char file[64];
	snprintf(file, sizeof file, "%s/x.memwatch", path);
	for (unsigned order = 0; order < sizeof orders / sizeof *orders; order++) {
		struct memwatch_exporter_options exporter_options;
		struct memwatch_recorder_options recorder_options;
		memwatch_exporter *exporter;
		memwatch_recorder *recorder;
		memwatch_sink *sink;
		memwatch *watcher = open_backend("auto");
		add_region(watcher, &value, sizeof value, "value");
		memwatch_exporter_options_init(&exporter_options);
		exporter_options.port = 0;
		exporter_options.runtime_dir = "";
		CHECK_EQ(memwatch_exporter_open(watcher, &exporter_options, &exporter), 0);
		memwatch_recorder_options_init(&recorder_options);
		recorder_options.path = file;
		CHECK_EQ(memwatch_recorder_open(watcher, &recorder_options, &recorder), 0);
		OK(memwatch_sink_open(watcher, "sink", &sink));
		value++;
		for (int i = 0; i < PARTS; i++) {
			if (orders[order][i] == WATCHER)
				OK(memwatch_close(watcher));
			else if (orders[order][i] == EXPORTER)
				memwatch_exporter_close(exporter);
			else if (orders[order][i] == RECORDER)
				memwatch_recorder_close(recorder);
			else
				memwatch_sink_close(sink);
		}
	}
	unlink(file);
	snprintf(file, sizeof file, "rm -rf %s", path);
	CHECK_EQ(system(file), 0);
}
