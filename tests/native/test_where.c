/*
 * test_where.c -- who wrote: exact, page or none with a reason; never a wrong author as exact.
 */
#include "watching.h"

static memwatch *open_attributed(double budget)
{
	struct memwatch_options options;
	memwatch_options_init(&options);
	options.backend = "uffd";
	options.attribution_budget = budget;
	memwatch *watcher = open_with(&options);
	if (budget > 0 && !stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	return watcher;
}

/* Writers on lines of their own. */
/* clang-format off */
enum { FIRST_LINE = __LINE__ + 1, SECOND_LINE };
__attribute__((noinline, noclone)) static void write_first(volatile uint32_t *to, uint32_t value) { *to = value; }
__attribute__((noinline, noclone)) static void write_second(volatile uint32_t *to, uint32_t value) { *to = value; }
/* clang-format on */

static bool ends_with(const char *text, const char *end)
{
	return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

TEST(the_writer_is_exact_down_to_its_line)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_attributed(1);
	add_region(watcher, memory + 64, 16, "a");
	for (uint32_t i = 0; i < 20; i++) {
		(i % 2 ? write_first : write_second)((uint32_t *)(void *)(memory + 64 + i % 4 * 4), i + 1);
		const struct memwatch_event *event = only_event(watcher, i);
		const struct memwatch_where *where = &event->where;
		CHECK_EQ(where->attribution, MEMWATCH_ATTRIBUTION_EXACT);
		CHECK_EQ(where->reason, MEMWATCH_REASON_NONE);
		CHECK_EQ(where->fault_address, (uintptr_t)memory + 64 + i % 4 * 4);
		CHECK_TEXT(where->symbol, i % 2 ? "write_first" : "write_second");
		CHECK(ends_with(where->object, "test_where"));
		CHECK_EQ(where->fault_ip, (uintptr_t)(i % 2 ? write_first : write_second) + where->offset);
		CHECK(ends_with(where->native.file, "test_where.c"));
		CHECK_EQ(where->native.line, i % 2 ? FIRST_LINE : SECOND_LINE);
		CHECK_EQ(where->thread_id, gettid());
		CHECK_EQ(where->n_frames, 0);
		CHECK_OP(event->time_ns, <=, event->detected_ns);
		memwatch_event_unref(event);
	}
	struct memwatch_stats stats = stats_of(watcher);
	CHECK_EQ(stats.attribution_by[MEMWATCH_ATTRIBUTION_EXACT], 20);
	CHECK_OP(stats.faults, >=, 20);
	CHECK_OP(stats.signals_ours, >=, 20);
	CHECK_EQ(stats.latency.count, 20);
	memwatch_close(watcher);
}

static void *write_named(void *arg)
{
	pthread_setname_np(pthread_self(), "the writer");
	write_first(arg, 5);
	return (void *)(intptr_t)gettid();
}

TEST(a_thread_is_known_by_id_and_name)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_attributed(1);
	add_region(watcher, memory, 16, "a");
	pthread_t thread;
	void *id;
	CHECK(pthread_create(&thread, NULL, write_named, memory) == 0);
	pthread_join(thread, &id);
	/* No flush in a loop: it would close the page in front of the store, again and again. */
	WAIT_FOR(newest_told(watcher) > 0);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->where.thread_id, (intptr_t)id);
	CHECK_TEXT(event->where.thread_name, "the writer"); /* though it has ended */
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

struct early {
	_Atomic int step;
	uint32_t *target;
};

static void *write_when_told(void *arg)
{
	struct early *early = arg;
	while (atomic_load(&early->step) == 0)
		usleep(100);
	write_second(early->target, 7);
	return NULL;
}

TEST(threads_from_before_and_after_are_both_known)
{
	uint8_t *memory = map_pages(1);
	struct early early = { .target = (uint32_t *)(void *)(memory + 8) };
	pthread_t before, after;
	CHECK(pthread_create(&before, NULL, write_when_told, &early) == 0);
	memwatch *watcher = open_attributed(1);
	add_region(watcher, memory, 16, "a");
	atomic_store(&early.step, 1);
	pthread_join(before, NULL);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_EXACT);
	memwatch_event_unref(event);
	CHECK(pthread_create(&after, NULL, write_named, memory) == 0);
	pthread_join(after, NULL);
	event = only_event(watcher, 1);
	CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_EXACT);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

/* The neighbour's write opens the page: the region's own author is not known, and nobody says otherwise. */
TEST(a_neighbour_written_first_is_not_the_author)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_attributed(1);
	add_region(watcher, memory + 256, 16, "a");
	for (uint32_t i = 0; i < 200; i++) {
		uint64_t since = newest(watcher);
		write_first((uint32_t *)(void *)memory, i + 1);
		write_second((uint32_t *)(void *)(memory + 256), i + 1);
		const struct memwatch_event *event = only_event(watcher, since);
		if (event->where.attribution == MEMWATCH_ATTRIBUTION_EXACT)
			CHECK_TEXT(event->where.symbol, "write_second");
		memwatch_event_unref(event);
	}
	memwatch_close(watcher);
}

/* One event tells of both; its author is the first, and what it says of that one is true. */
TEST(of_two_writers_in_one_window_the_first_is_named_with_what_it_wrote)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_unhurried();
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	add_region(watcher, memory, 64, "a");
	for (uint32_t i = 0; i < 20; i++) {
		uint64_t since = newest(watcher);
		(i % 2 ? write_first : write_second)((uint32_t *)(void *)(memory + 32), 2 * i + 0x01010101);
		(i % 2 ? write_second : write_first)((uint32_t *)(void *)memory, 2 * i + 0x01010101);
		const struct memwatch_event *event = only_event(watcher, since);
		CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_EXACT);
		CHECK_TEXT(event->where.symbol, i % 2 ? "write_first" : "write_second");
		CHECK_EQ(event->where.fault_address, (uintptr_t)memory + 32);
		CHECK_EQ(event->n_changes, 2);
		CHECK_EQ(event->changes[1].offset, 32);
		memwatch_event_unref(event);
	}
	memwatch_close(watcher);
}

/* The first one stored what was there: it is not the author of what another one changed beside it. */
TEST(a_writer_that_changes_nothing_is_not_the_author_of_other_bytes)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_unhurried();
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	add_unlent(watcher, memory, 64, "a");
	for (uint32_t i = 0; i < 20; i++) {
		uint64_t since = newest(watcher);
		write_first((uint32_t *)(void *)memory, 0);
		write_second((uint32_t *)(void *)(memory + 32), i + 1);
		const struct memwatch_event *event = only_event(watcher, since);
		const struct memwatch_where *where = &event->where, *hint = where->page_writer;
		CHECK_EQ(where->attribution, MEMWATCH_ATTRIBUTION_PAGE);
		CHECK_TEXT(where->symbol, "");
		CHECK_TEXT(where->thread_name, "");
		CHECK(!where->fault_ip && !where->fault_address && !where->thread_id && !where->n_frames);
		CHECK(hint && !hint->page_writer);
		CHECK_TEXT(hint->symbol, "write_first");
		CHECK_EQ(hint->thread_id, gettid());
		CHECK_EQ(event->time_ns, event->detected_ns);
		memwatch_event_unref(event);
	}
	memwatch_close(watcher);
}

TEST(without_a_budget_there_is_no_author_and_no_signal)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_attributed(0);
	add_region(watcher, memory, 16, "a");
	for (uint64_t i = 0; i < 10; i++) {
		write_first((uint32_t *)(void *)memory, (uint32_t)i + 1);
		const struct memwatch_event *event = only_event(watcher, i);
		CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_NONE);
		CHECK_TEXT(memwatch_reason_text(event->where.reason), "off");
		CHECK_EQ(event->where.fault_ip, 0);
		CHECK_TEXT(event->where.symbol, "");
		CHECK_TEXT(event->where.thread_name, "");
		memwatch_event_unref(event);
	}
	CHECK_EQ(stats_of(watcher).signals, 0);
	memwatch_close(watcher);
}

TEST(polled_regions_say_so)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend("poll");
	add_region(watcher, memory, 16, "a");
	poke(memory, 1);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_NONE);
	CHECK_TEXT(memwatch_reason_text(event->where.reason), "polling");
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

TEST(mprotect_knows_the_writer_too)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend("mprotect");
	add_region(watcher, memory + 64, 16, "a");
	for (uint32_t i = 0; i < 20; i++) {
		(i % 2 ? write_first : write_second)((uint32_t *)(void *)(memory + 64), i + 1);
		const struct memwatch_event *event = only_event(watcher, i);
		CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_EXACT);
		CHECK_TEXT(event->where.symbol, i % 2 ? "write_first" : "write_second");
		CHECK_EQ(event->where.thread_id, gettid());
		memwatch_event_unref(event);
	}
	memwatch_close(watcher);
}

static void *write_with_signals_blocked(void *arg)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	write_first(arg, 77);
	return NULL;
}

TEST(a_thread_that_blocks_signals_lives_and_is_seen)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_attributed(1);
	uint64_t id = add_region(watcher, memory, 16, "a");
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, write_with_signals_blocked, memory) == 0);
	pthread_join(thread, NULL);
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK(event);
	CHECK_EQ(event->new_value[0], 77);
	CHECK(event->where.attribution == MEMWATCH_ATTRIBUTION_NONE ||
	      strcmp(event->where.symbol, "write_first") == 0); /* the signal came when it ended, or never */
	CHECK(event->where.reason != MEMWATCH_REASON_KERNEL);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

struct held {
	uint8_t *memory;
	pthread_barrier_t written, looked_at;
};

static void *write_and_hold(void *arg)
{
	struct held *held = arg;
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	write_first((volatile uint32_t *)(void *)held->memory, 77);
	pthread_barrier_wait(&held->written);
	pthread_barrier_wait(&held->looked_at);
	return NULL;
}

/* Only while a signal is really held back is the writer said to block it. */
TEST(blocked_is_said_while_a_signal_is_held_back)
{
	struct held held = { .memory = map_pages(1) };
	memwatch *watcher = open_attributed(1);
	uint64_t id = add_region(watcher, held.memory, 16, "a");
	pthread_t thread;
	pthread_barrier_init(&held.written, NULL, 2);
	pthread_barrier_init(&held.looked_at, NULL, 2);
	CHECK(pthread_create(&thread, NULL, write_and_hold, &held) == 0);
	pthread_barrier_wait(&held.written);
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK(event);
	CHECK_TEXT(memwatch_reason_text(event->where.reason), "blocked");
	memwatch_event_unref(event);
	pthread_barrier_wait(&held.looked_at);
	pthread_join(thread, NULL);
	memwatch_close(watcher);
}

/* A hook's numbers become frames, callers included. */
static _Atomic uint32_t hook_location;
static _Atomic unsigned hook_depth;

static uint32_t hook(void *ucontext, unsigned depth)
{
	if (!ucontext)
		return 0;
	atomic_store(&hook_depth, depth);
	return atomic_load(&hook_location);
}

TEST(a_frame_hook_gives_frames)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_attributed(1);
	add_region(watcher, memory, 16, "a");
	uint32_t outer = memwatch_location_intern("main.py", 7, "main", 4, 10, 0);
	uint32_t inner = memwatch_location_intern("/lib/inner.py", 13, "Class.method", 12, 42, outer);
	CHECK(outer && inner && outer != inner);
	CHECK_EQ(memwatch_location_intern("/lib/inner.py", 13, "Class.method", 12, 42, outer), inner);
	CHECK(memwatch_location_intern("/lib/inner.py", 13, "Class.method", 12, 43, outer) != inner);
	atomic_store(&hook_location, inner);
	memwatch_frame_hook_set(hook);
	poke(memory, 1);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->where.n_frames, 2);
	CHECK_TEXT(event->where.frames[0].file, "/lib/inner.py");
	CHECK_TEXT(event->where.frames[0].function, "Class.method");
	CHECK_EQ(event->where.frames[0].line, 42);
	CHECK_TEXT(event->where.frames[1].function, "main");
	CHECK_EQ(hook_depth, 1);
	memwatch_event_unref(event);
	memwatch_frame_hook_set(NULL);
	poke(memory, 2);
	event = only_event(watcher, 1);
	CHECK_EQ(event->where.n_frames, 0);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

TEST(locations_are_bounded)
{
	memwatch *watcher;
	char name[64];
	OK(memwatch_open(NULL, &watcher));
	uint32_t first = memwatch_location_intern("first", 5, "f", 1, 1, 0), last = 1;
	for (int i = 0; i < 200000 && last; i++) {
		int n = snprintf(name, sizeof name, "function number %d", i);
		last = memwatch_location_intern("file", 4, name, (size_t)n, i, 0);
	}
	CHECK_EQ(last, 0);
	CHECK_EQ(memwatch_location_intern("first", 5, "f", 1, 1, 0), first);
	CHECK_OP(stats_of(watcher).locations_dropped, >, 0);
	memwatch_close(watcher);
}

/* However many ways lead to a line, the line itself stays known. */
TEST(callers_are_given_up_before_lines)
{
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	uint32_t caller = 0;
	for (int i = 0; i < 100000; i++) {
		caller = memwatch_location_intern("deep.py", 7, "recurse", 7, i % 7, caller);
		CHECK(caller);
	}
	uint64_t dropped = stats_of(watcher).locations_dropped;
	CHECK_OP(dropped, >, 0);
	for (int i = 0; i < 1000; i++)
		CHECK(memwatch_location_intern("new.py", 6, "f", 1, i, 0));
	CHECK_EQ(stats_of(watcher).locations_dropped, dropped);
	memwatch_close(watcher);
}

/* --- the lie detector ------------------------------------------------------------------------------------------- */

/* Many writers, each with a variable that only it writes, and each in an instruction of its own. */
#define WRITER(n)                                                                                                      \
	__attribute__((noinline, noclone)) static void writer_##n(volatile uint32_t *to, uint32_t value)               \
	{                                                                                                              \
		*to = value;                                                                                           \
		__asm__ volatile("" ::"r"(n));                                                                         \
	}
/* clang-format off */
WRITER(0) WRITER(1) WRITER(2) WRITER(3) WRITER(4) WRITER(5) WRITER(6) WRITER(7)
	/* clang-format on */
	static void (*const writers[])(volatile uint32_t *, uint32_t) = { writer_0, writer_1, writer_2, writer_3,
									  writer_4, writer_5, writer_6, writer_7 };

struct liar {
	uint8_t *memory;
	unsigned number;
	_Atomic bool *stop;
};

static void *write_ones_own(void *arg)
{
	struct liar *liar = arg;
	uint64_t state = liar->number + 1;
	for (uint32_t i = 0; !atomic_load(liar->stop); i++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		unsigned which = liar->number * 4 + (state >> 60) % 4; /* 4 writers a thread, 8 variables each */
		unsigned variable = which * 8 + (state >> 40) % 8;
		writers[which]((uint32_t *)(void *)(liar->memory + variable * 64), i + 1);
		if ((state >> 20) % 16 == 0)
			usleep((unsigned)(state >> 10) % 3000);
	}
	return NULL;
}

TEST(no_exact_answer_is_wrong)
{
	static _Atomic bool stop;
	const struct memwatch_event *events[64];
	struct memwatch_cursor cursor = { .next = 0 };
	struct liar liars[2];
	uint64_t n_exact = 0;
	pthread_t threads[2];
	char name[8];
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_attributed(1);
	for (unsigned i = 0; i < 64; i++) { /* 64 variables on one page */
		snprintf(name, sizeof name, "%u", i);
		add_region(watcher, memory + i * 64, 4, name);
	}
	for (unsigned i = 0; i < 2; i++) {
		liars[i] = (struct liar){ memory, i, &stop };
		CHECK(pthread_create(&threads[i], NULL, write_ones_own, &liars[i]) == 0);
	}
	double end = harness_now_s() + of_load(3);
	for (int n; n_exact <= 10 || harness_now_s() < end;) {
		n = memwatch_events_read(watcher, cursor.next, events, 64, &cursor);
		OK(n);
		for (int i = 0; i < n; i++) {
			if (events[i]->where.attribution == MEMWATCH_ATTRIBUTION_EXACT) {
				char writer[24];
				snprintf(writer, sizeof writer, "writer_%d", atoi(events[i]->name) / 8);
				n_exact++;
				if (strcmp(events[i]->where.symbol, writer) != 0)
					FAIL("%s was written by %s, not by %s", events[i]->name, writer,
					     events[i]->where.symbol);
			}
			memwatch_event_unref(events[i]);
		}
		if (!n)
			memwatch_events_wait(watcher, cursor.next, 100);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	CHECK_OP(n_exact, >, 10);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(a_writer_that_restores_the_bytes_is_unchanged)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_attributed(1);
	uint64_t id = add_region(watcher, memory, 16, "a");
	uint64_t n_changes = 0;
	for (int i = 0; i < 50; i++) {
		write_first((uint32_t *)(void *)memory, 5);
		write_second((uint32_t *)(void *)memory, 0);
		n_changes = newest(watcher);
	}
	struct memwatch_ledger ledger = info_of(watcher, id).ledger;
	CHECK_EQ(ledger.delivered, n_changes);
	CHECK_OP(ledger.unchanged, >, 0);
	check_ledger(&ledger);
	memwatch_close(watcher);
}

/* Wide, repeated and unaligned stores, also across pages. */
TEST(wide_stores_are_exact)
{
	uint8_t *memory = map_pages(4), source[PAGE * 2];
	memwatch *watcher = open_unhurried();
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	add_region(watcher, memory + 1, 3 * PAGE, "a");
	for (int i = 0; i < 10; i++) {
		static const size_t sizes[] = { 3, 8, 16, 31, 64, 200, 1000, 4096, 5000, 8192 };
		memset(source, i + 1, sizeof source);
		uint64_t since = newest(watcher);
		memcpy(memory + 2000, source, sizes[i]);
		const struct memwatch_event *event = only_event(watcher, since);
		CHECK_EQ(event->changed_bytes, sizes[i]);
		CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_EXACT);
		memwatch_event_unref(event);
	}
	memwatch_close(watcher);
}
