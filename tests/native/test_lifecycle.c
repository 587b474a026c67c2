/*
 * test_lifecycle.c -- watchers: opening, options, sharing the engine, flushing, closing, forking.
 */
#include "watching.h"

#include <dirent.h>

static unsigned count_entries(const char *path)
{
	unsigned n = 0;
	DIR *directory = opendir(path);
	CHECK(directory);
	while (readdir(directory))
		n++;
	closedir(directory);
	return n;
}

TEST(the_defaults_are_as_written)
{
	struct memwatch_options options;
	memset(&options, 0xff, sizeof options);
	memwatch_options_init(&options);
	CHECK_EQ(options.struct_bytes, sizeof options);
	CHECK_TEXT(options.backend, "auto");
	CHECK_EQ(options.window_ms, 5);
	CHECK_EQ(options.ring_capacity, 65536);
	CHECK(options.attribution_budget > 0.0099 && options.attribution_budget < 0.0101);
	CHECK_EQ(options.stack_depth, 1);
	CHECK_EQ(options.inline_threshold, 4096);
	CHECK_EQ(options.preview_size, 256);
	CHECK_EQ(options.event_capacity, 65536);
	CHECK_EQ(options.event_budget, 64 << 20);
	CHECK_EQ(options.history_budget, 64 << 20);
	CHECK_TEXT(memwatch_version(), MEMWATCH_VERSION);
	CHECK(memwatch_error() != NULL);
}

TEST(a_write_becomes_an_event)
{
	static uint8_t data[5] = "Hello";
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	uint64_t id = add_region(watcher, data, sizeof data, "data");
	poke(data, 'J');
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->seq, 1);
	CHECK_EQ(event->region_id, id);
	CHECK_TEXT(event->name, "data");
	CHECK_EQ(event->kind, MEMWATCH_EVENT_CHANGE);
	CHECK_EQ(event->size_bytes, 5);
	CHECK(memcmp(event->old_value, "Hello", 5) == 0);
	CHECK(memcmp(event->new_value, "Jello", 5) == 0);
	CHECK(memcmp(event->old_preview, "Hello", 5) == 0);
	CHECK(memcmp(event->new_preview, "Jello", 5) == 0);
	CHECK_EQ(event->preview_bytes, 5);
	CHECK_EQ(event->changed_bytes, 1);
	CHECK_EQ(event->n_changes, 1);
	CHECK_EQ(event->changes[0].offset, 0);
	CHECK_EQ(event->changes[0].size_bytes, 1);
	CHECK_TEXT(event->storage_key_old, "");
	CHECK_TEXT(event->storage_key_new, "");
	CHECK_TEXT(event->format, "");
	CHECK_EQ(event->item_bytes, 1);
	CHECK_OP(event->detected_ns, >=, event->time_ns);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

TEST(everything_is_given_back)
{
	uint8_t *memory = map_pages(4);
	memwatch *watcher = NULL;
	unsigned fds = 0, tasks = 0;
	for (int i = 0; i < 20; i++) { /* the first round opens what stays */
		OK(memwatch_open(NULL, &watcher));
		add_region(watcher, memory, PAGE, "a");
		poke(memory, (uint8_t)(i + 1));
		flush(watcher);
		memwatch_close(watcher);
		if (i == 1) {
			fds = count_entries("/proc/self/fd");
			tasks = count_entries("/proc/self/task");
		}
	}
	CHECK_EQ(count_entries("/proc/self/fd"), fds);
	CHECK_EQ(count_entries("/proc/self/task"), tasks);
	memwatch_close(NULL);
}

static void count_change(const struct memwatch_event *event, void *arg)
{
	if (event->kind == MEMWATCH_EVENT_CHANGE)
		atomic_fetch_add((_Atomic int *)arg, 1);
}

TEST(close_delivers_what_was_written)
{
	static uint8_t value;
	static _Atomic int n_calls;
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	add_region(watcher, &value, 1, "value");
	OK(memwatch_callback_set(watcher, count_change, (void *)&n_calls));
	poke(&value, 1);
	memwatch_close(watcher);
	CHECK_EQ(atomic_load(&n_calls), 1);
}

/* --- options ---------------------------------------------------------------------------------------------------- */

#define REFUSED(field, value)                                                                                          \
	do {                                                                                                           \
		struct memwatch_options refused;                                                                       \
		memwatch *refused_watcher = (memwatch *)8;                                                             \
		memwatch_options_init(&refused);                                                                       \
		refused.field = value;                                                                                 \
		FAILS(memwatch_open(&refused, &refused_watcher), EINVAL);                                              \
		CHECK(refused_watcher == (memwatch *)8);                                                               \
	} while (0)

TEST(options_out_of_range_are_refused)
{
	REFUSED(struct_bytes, 0);
	REFUSED(backend, "magic");
	REFUSED(window_ms, 0);
	REFUSED(window_ms, 10001);
	REFUSED(ring_capacity, 8);
	REFUSED(ring_capacity, 17);
	REFUSED(ring_capacity, 1 << 25);
	REFUSED(attribution_budget, -0.1);
	REFUSED(attribution_budget, 1.5);
	REFUSED(attribution_budget, __builtin_nan(""));
	REFUSED(stack_depth, MEMWATCH_STACK_MAX + 1);
}

TEST(options_on_the_border_are_taken)
{
	static const uint32_t windows[] = { 1, 10000 }, rings[] = { 16, 1 << 20 };
	for (int i = 0; i < 2; i++) {
		struct memwatch_options options;
		memwatch_options_init(&options);
		options.window_ms = windows[i];
		options.ring_capacity = rings[i];
		options.attribution_budget = i;
		options.stack_depth = i ? MEMWATCH_STACK_MAX : 1;
		memwatch *watcher = open_with(&options);
		struct memwatch_stats stats = stats_of(watcher);
		CHECK_EQ(stats.window_ms, windows[i]);
		CHECK_EQ(stats.ring.capacity, rings[i]);
		memwatch_close(watcher);
	}
}

BACKEND_TEST(a_backend_by_name_is_that_backend)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend(backend);
	CHECK_TEXT(stats_of(watcher).backend, backend);
	uint64_t id = add_region(watcher, memory, 100, "a");
	CHECK_TEXT(info_of(watcher, id).backend, backend);
	poke(memory + 50, 1);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_TEXT(event->backend, backend);
	CHECK_EQ(event->changes[0].offset, 50);
	memwatch_event_unref(event);
	struct memwatch_backend_info infos[N_BACKENDS];
	CHECK_EQ(memwatch_backend_list(watcher, infos, N_BACKENDS), N_BACKENDS);
	for (int i = 0; i < N_BACKENDS; i++)
		CHECK_EQ(infos[i].chosen, strcmp(infos[i].name, backend) == 0);
	memwatch_close(watcher);
}

TEST(backends_are_listed_in_the_order_of_auto)
{
	struct memwatch_backend_info infos[N_BACKENDS];
	CHECK_EQ(memwatch_backend_list(NULL, infos, N_BACKENDS), N_BACKENDS);
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	bool found = false;
	for (int i = 0; i < N_BACKENDS; i++) {
		CHECK_TEXT(infos[i].name, backend_names[i]);
		CHECK_EQ(infos[i].chosen, 0);
		CHECK(infos[i].usable || strlen(infos[i].note) > 10);
		if (infos[i].usable && !found)
			CHECK_TEXT(stats_of(watcher).backend, backend_names[i]);
		found |= infos[i].usable;
	}
	CHECK(infos[1].usable);
	memwatch_close(watcher);
}

static void count_call(const struct memwatch_event *event, void *arg)
{
	(void)event;
	atomic_fetch_add((_Atomic int *)arg, 1);
}

/* As if the process had its last thread: none can be made while this is set. */
static void forbid_threads(bool forbidden)
{
	static pthread_attr_t before, attr;
	if (forbidden) {
		CHECK_EQ(pthread_getattr_default_np(&before), 0);
		CHECK_EQ(pthread_attr_init(&attr), 0);
		CHECK_EQ(pthread_attr_setstacksize(&attr, (size_t)1 << 46), 0);
	}
	CHECK_EQ(pthread_setattr_default_np(forbidden ? &attr : &before), 0);
}

TEST(the_first_callback_needs_a_thread_and_no_other_does)
{
	_Atomic int n_first = 0, n_second = 0;
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend("auto");
	add_region(watcher, memory, 100, "a");
	forbid_threads(true);
	FAILS(memwatch_callback_set(watcher, count_call, (void *)&n_first), EAGAIN);
	forbid_threads(false);
	OK(memwatch_callback_set(watcher, count_call, (void *)&n_first));
	forbid_threads(true);
	OK(memwatch_callback_set(watcher, count_call, (void *)&n_second));
	forbid_threads(false);
	poke(memory, 1);
	OK(memwatch_flush(watcher, PATIENCE_MS));
	memwatch_close(watcher);
	CHECK_EQ(atomic_load(&n_first), 0);
	CHECK_EQ(atomic_load(&n_second), 1);
}

/* --- several watchers, one engine ------------------------------------------------------------------------------- */

TEST(watchers_share_memory_and_number_for_themselves)
{
	uint8_t *memory = map_pages(1);
	memwatch *watchers[3];
	for (int i = 0; i < 3; i++) {
		OK(memwatch_open(NULL, &watchers[i]));
		add_region(watchers[i], memory, PAGE, "the same name");
	}
	CHECK(memwatch_epoch(watchers[0]) != memwatch_epoch(watchers[1]));
	CHECK(memwatch_epoch(watchers[0]) != 0);
	poke(memory + 7, 7);
	for (int i = 0; i < 3; i++) {
		const struct memwatch_event *event = only_event(watchers[i], 0);
		CHECK_EQ(event->seq, 1);
		CHECK_EQ(event->new_preview[7], 7);
		memwatch_event_unref(event);
	}
	memwatch_close(watchers[0]); /* the page stays watched for the others */
	poke(memory + 8, 8);
	for (int i = 1; i < 3; i++)
		memwatch_event_unref(only_event(watchers[i], 1));
	memwatch_close(watchers[2]);
	poke(memory + 9, 9);
	memwatch_event_unref(only_event(watchers[1], 2));
	memwatch_close(watchers[1]);
}

TEST(a_second_watcher_cannot_change_the_engine)
{
	memwatch *first, *second = NULL;
	OK(memwatch_open(NULL, &first));
	struct memwatch_options options;
	memwatch_options_init(&options);
	options.window_ms = 50;
	FAILS(memwatch_open(&options, &second), EBUSY);
	CHECK(second == NULL);
	memwatch_close(first);
	OK(memwatch_open(&options, &second));
	CHECK_EQ(stats_of(second).window_ms, 50);
	memwatch_close(second);
}

TEST(watchers_of_different_backends_share_a_page)
{
	static const char *const names[] = { "uffd", "poll", "mprotect" };
	uint8_t *memory = map_pages(2);
	memwatch *watchers[3];
	for (int i = 0; i < 3; i++) {
		watchers[i] = open_backend(names[i]);
		add_region(watchers[i], memory + 100, 1000, names[i]);
	}
	for (int round = 1; round <= 5; round++) {
		poke(memory + 150, (uint8_t)round);
		for (int i = 0; i < 3; i++) {
			const struct memwatch_event *event = only_event(watchers[i], (uint64_t)round - 1);
			CHECK_EQ(event->new_value[50], round);
			memwatch_event_unref(event);
		}
	}
	for (int i = 0; i < 3; i++)
		memwatch_close(watchers[i]);
}

/* --- fork ------------------------------------------------------------------------------------------------------- */

static int in_child(memwatch *watcher, uint64_t id, uint8_t *memory)
{
	struct memwatch_stats stats;
	struct memwatch_cursor cursor;
	struct memwatch_region_info info;
	const struct memwatch_event *event;
	uint64_t new_id;
	poke(memory, 99);
	if (memwatch_region_add(watcher, memory, 1, NULL, &new_id) != -ECHILD ||
	    memwatch_region_remove(watcher, id) != -ECHILD || memwatch_flush(watcher, 100) != -ECHILD ||
	    memwatch_stats_get(watcher, &stats) != -ECHILD || memwatch_region_info_get(watcher, id, &info) != -ECHILD ||
	    memwatch_events_read(watcher, 0, &event, 1, &cursor) != -ECHILD)
		return 1;
	if (UNDER_TSAN) /* it starts no threads in the child of a threaded process */
		return 0;
	memwatch *own;
	if (memwatch_open(NULL, &own) < 0 || memwatch_region_add(own, memory, PAGE, NULL, &new_id) < 0)
		return 2;
	poke(memory + 1, 1);
	if (memwatch_flush(own, PATIENCE_MS) < 0 || memwatch_events_read(own, 0, &event, 1, &cursor) != 1 ||
	    event->new_value[1] != 1 || event->old_value[0] != 99)
		return 3;
	memwatch_event_unref(event);
	memwatch_close(own);
	memwatch_close(watcher);
	return 0;
}

BACKEND_TEST(forked_children_are_on_their_own)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend(backend);
	uint64_t id = add_region(watcher, memory, PAGE, "a");
	for (int i = 0; i < 20; i++) {
		uint64_t before = newest(watcher);
		pid_t child = fork();
		if (child == 0)
			_exit(in_child(watcher, id, memory));
		int status;
		CHECK_EQ(waitpid(child, &status, 0), child);
		CHECK_EQ(status, 0);
		CHECK_EQ(newest(watcher), before);
		poke(memory + 2, (uint8_t)(i + 1));
		const struct memwatch_event *event = only_event(watcher, before);
		CHECK_EQ(event->changed_bytes, 1);
		CHECK_EQ(event->new_value[0], 0);
		memwatch_event_unref(event);
	}
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(a_child_that_execs_is_undisturbed)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher;
	int n_descriptors = system("exit $(ls /proc/self/fd | wc -l)");
	OK(memwatch_open(NULL, &watcher));
	add_region(watcher, memory, PAGE, "a");
	for (int i = 0; i < 5; i++)
		CHECK_EQ(system("exit $(ls /proc/self/fd | wc -l)"), n_descriptors);
	memwatch_close(watcher);
}
