/*
 * test_guard.c -- watchpoints that small regions are lent: neighbours do not cost them their authors, and what no hit
 * tells of is nobody's.
 */
#include "points.h"

enum { WRITES = 1000 };

static _Atomic bool enough;

static void *write_beside(void *arg)
{
	volatile uint64_t *to = arg;
	for (uint64_t i = 0; !enough; i++)
		*to = i;
	return NULL;
}

static pthread_t begin_beside(volatile uint64_t *neighbour)
{
	pthread_t thread;
	enough = false;
	CHECK_EQ(pthread_create(&thread, NULL, write_beside, (void *)(uintptr_t)neighbour), 0);
	return thread;
}

static void end_beside(pthread_t thread)
{
	enough = true;
	pthread_join(thread, NULL);
}

static memwatch *open_frugal(void)
{
	struct memwatch_options options;
	memwatch_options_init(&options);
	options.backend = "uffd";
	options.window_ms = 1;
	memwatch *watcher = open_with(&options);
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	return watcher;
}

/* Is it lent a watchpoint within the limit? Its writes go on meanwhile. */
static void earn_watchpoint(memwatch *watcher, uint64_t id, volatile uint64_t *variable)
{
	double end = harness_now_s() + harness_limit_s() / 2;
	while (!info_of(watcher, id).precise) {
		if (harness_now_s() > end)
			FAIL("no watchpoint was lent");
		store_one(variable, *variable + 1);
		flush(watcher);
	}
}

static void skip_without_watchpoints(volatile void *variable)
{
	memwatch *probe = open_backend("auto");
	add_precise(probe, variable, 8, "probe");
	memwatch_close(probe);
}

/* How many of `n` writes, one an event, name their writer; none may name another. */
static int count_exact(memwatch *watcher, uint64_t id, volatile uint64_t *variable, int n)
{
	static const struct memwatch_event *events[1024];
	int n_before = events_of(watcher, id, events, 1024), n_exact = 0;
	for (int i = 0; i < n; i++) {
		store_one(variable, *variable + 1);
		flush(watcher);
		usleep(3000); /* more than that a second is hot */
	}
	CHECK_EQ(events_of(watcher, id, events, 1024), n_before + n);
	for (int i = n_before; i < n_before + n; i++) {
		if (events[i]->where.attribution != MEMWATCH_ATTRIBUTION_EXACT)
			continue;
		check_exact(events[i], "store_one", gettid());
		n_exact++;
	}
	return n_exact;
}

TEST(a_small_region_with_hot_neighbours_is_lent_a_watchpoint_at_once)
{
	struct shared_page *page = (void *)map_pages(1);
	skip_without_watchpoints(&page->e);
	memwatch *watcher = open_frugal();
	uint64_t id = add_region(watcher, (void *)(uintptr_t)&page->a, 8, "a");
	CHECK_EQ(info_of(watcher, id).precise, 1);
	pthread_t thread = begin_beside(&page->b);
	CHECK_OP(count_exact(watcher, id, &page->a, 100), >=, 95);
	end_beside(thread);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

/* 5, 12 and 24 bytes; the last as one word after another. */
TEST(words_of_any_small_region_are_covered)
{
	static const size_t sizes[] = { 5, 12, 24 };
	struct shared_page *page = (void *)map_pages(1);
	skip_without_watchpoints(&page->e);
	memwatch *watcher = open_frugal();
	pthread_t thread = begin_beside(&page->after[0]);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		uint64_t id = add_region(watcher, (void *)(uintptr_t)&page->a, sizes[i], "words");
		CHECK_EQ(info_of(watcher, id).precise, 1);
		CHECK_OP(count_exact(watcher, id, &page->a, 40), >=, 38);
		if (sizes[i] > 8)
			CHECK_OP(count_exact(watcher, id, &page->b, 40), >=, 38);
		OK(memwatch_region_remove(watcher, id));
	}
	end_beside(thread);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

/* What changed without an author is likely to change again; so are two fields that change in turn. */
TEST(words_of_a_larger_region_that_change_are_covered)
{
	struct shared_page *page = (void *)map_pages(1);
	skip_without_watchpoints(&page->e);
	memwatch *watcher = open_frugal();
	volatile uint64_t *first = &page->after[5], *second = &page->after[17];
	uint64_t id = add_region(watcher, (void *)(uintptr_t)&page->after[1], 200, "larger");
	CHECK_EQ(info_of(watcher, id).precise, 0);
	pthread_t thread = begin_beside(&page->a);
	earn_watchpoint(watcher, id, first);
	CHECK_OP(count_exact(watcher, id, first, 60), >=, 45);
	count_exact(watcher, id, second, 60); /* until it is covered, too */
	int n_exact = 0;
	for (int i = 0; i < 20; i++)
		n_exact += count_exact(watcher, id, first, 1) + count_exact(watcher, id, second, 1);
	CHECK_OP(n_exact, >=, 28);
	CHECK_OP(stats_of(watcher).throttled_ns, >, 0); /* the neighbour has used up the budget for steps */
	uint64_t small = add_region(watcher, (void *)(uintptr_t)&page->b, 24, "small");
	CHECK_EQ(info_of(watcher, small).precise, 1); /* what is watched whole comes first */
	end_beside(thread);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

/* A system call's write between two stores: values prove whose is whose. */
TEST(a_hit_never_explains_what_the_kernel_wrote)
{
	static const struct memwatch_event *events[1024];
	struct shared_page *page = (void *)map_pages(1);
	int ends[2];
	skip_without_watchpoints(&page->e);
	memwatch *watcher = open_frugal();
	uint64_t id = add_region(watcher, (void *)(uintptr_t)&page->a, 8, "a"), number = UINT64_C(1) << 40;
	OK(pipe(ends));
	for (int i = 0; i < 100; i++) {
		number++;
		CHECK_EQ(write(ends[1], &number, sizeof number), sizeof number);
		CHECK_EQ(read(ends[0], (void *)(uintptr_t)&page->a, sizeof number), sizeof number);
		flush(watcher);
		store_one(&page->a, (uint64_t)i + 1);
		flush(watcher);
		usleep(3000);
	}
	int n = events_of(watcher, id, events, 1024), n_exact = 0;
	CHECK_OP(n, >=, 200); /* the kernel copies byte by byte, and may be seen half-way */
	check_chain(events, n);
	for (int i = 0; i < n; i++) {
		bool exact = events[i]->where.attribution == MEMWATCH_ATTRIBUTION_EXACT;
		n_exact += exact;
		if (exact)
			CHECK_OP(number_of(events[i]->new_value, 8), <=, 100);
	}
	CHECK_OP(n_exact, >=, 95);
	memwatch_close(watcher);
}

TEST(what_is_lent_gives_way_and_is_given_back_when_hot)
{
	struct shared_page *page = (void *)map_pages(1);
	skip_without_watchpoints(&page->e);
	memwatch *watcher = open_frugal();
	uint64_t id = add_region(watcher, (void *)(uintptr_t)&page->a, 8, "a"), ids[4];
	pthread_t thread = begin_beside(&page->b);
	char name[2] = "b"; /* those that are asked for come first */
	for (int i = 0; i < 4; i++, name[0]++)
		ids[i] = add_precise(watcher, &page->before[i], 8, name);
	CHECK_EQ(info_of(watcher, id).precise, 0);
	for (int i = 0; i < 4; i++)
		OK(memwatch_region_remove(watcher, ids[i]));
	earn_watchpoint(watcher, id, &page->a);
	double end = harness_now_s() + harness_limit_s() / 2; /* written all the time it costs too much */
	while (info_of(watcher, id).precise && harness_now_s() < end)
		for (int i = 0; i < WRITES; i++)
			store_one(&page->a, page->a + 1);
	CHECK_EQ(info_of(watcher, id).precise, 0);
	end_beside(thread);
	check_ledgers(watcher);
	memwatch_close(watcher);
}
