/*
 * test_precise.c -- hardware watchpoints: every write to a small variable is an event with its own values and writer.
 */
#include "points.h"

#include <sys/syscall.h>

enum { WRITES = 1000, SPINS = 20, MANY = 90000 };

WRITER store_other(volatile uint64_t *to, uint64_t value)
{
	*to = value;
}

/* The store is the last instruction before the return: the one after it is on another line. */
enum { LINE = __LINE__ + 3 };
__attribute__((noinline, noclone)) static void store_on_line(volatile uint64_t *to, uint64_t value)
{
	*to = value;
}

/* --- every write ------------------------------------------------------------------------------------------------ */

struct job {
	void (*store)(volatile uint64_t *to, uint64_t value);
	volatile uint64_t *to;
	pid_t thread;
};

static void *write_many(void *arg)
{
	struct job *job = arg;
	job->thread = gettid();
	for (uint64_t i = 1; i <= WRITES; i++)
		job->store(job->to, i);
	return NULL;
}

TEST(every_write_of_two_threads_is_an_event)
{
	static const struct memwatch_event *events[WRITES + 1];
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	uint64_t ids[2] = { add_precise(watcher, &page->a, 8, "a"), add_precise(watcher, &page->b, 8, "b") };
	struct job jobs[2] = { { store_one, &page->a, 0 }, { store_other, &page->b, 0 } };
	pthread_t threads[2];
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, write_many, &jobs[i]), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(events_of(watcher, ids[i], events, WRITES + 1), WRITES);
		for (uint64_t k = 0; k < WRITES; k++) {
			CHECK_EQ(number_of(events[k]->old_value, 8), k);
			CHECK_EQ(number_of(events[k]->new_value, 8), k + 1);
			check_exact(events[k], i ? "store_other" : "store_one", jobs[i].thread);
			CHECK_EQ(events[k]->where.fault_address, (uintptr_t)jobs[i].to);
			CHECK_OP(events[k]->time_ns, <=, events[k]->detected_ns);
			CHECK(!k || events[k - 1]->time_ns <= events[k]->time_ns);
		}
		struct memwatch_region_info info = info_of(watcher, ids[i]);
		CHECK_EQ(info.ledger.detected, WRITES);
		CHECK_EQ(info.ledger.delivered, WRITES);
	}
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(events_come_without_a_flush)
{
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	add_precise(watcher, &page->a, 8, "a");
	for (uint64_t i = 1; i <= SPINS; i++) {
		store_one(&page->a, i);
		CHECK_EQ(memwatch_events_wait(watcher, i - 1, PATIENCE_MS), 1);
	}
	memwatch_close(watcher);
}

TEST(the_line_is_that_of_the_store)
{
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	add_precise(watcher, &page->a, 8, "a");
	store_on_line(&page->a, 1);
	const struct memwatch_event *event = only_event(watcher, 0);
	check_exact(event, "store_on_line", gettid());
	CHECK_EQ(event->where.native.line, LINE);
	CHECK_EQ(event->where.fault_ip, (uintptr_t)store_on_line + event->where.offset);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

TEST(sizes_from_one_to_eight_bytes)
{
	static const struct memwatch_event *events[8];
	uint8_t *page = map_pages(1);
	memwatch *watcher = open_backend("auto");
	uint64_t ids[4];
	char name[2] = "a";
	for (int i = 0; i < 4; i++, name[0]++)
		ids[i] = add_precise(watcher, page + 64 * i + (1 << i), 1u << i, name);
	poke(page + 1, 7);
	*(volatile uint16_t *)(void *)(page + 64 + 2) = 700;
	*(volatile uint32_t *)(void *)(page + 128 + 4) = 70000;
	poke(page + 192 + 8 + 7, 1); /* a part of it */
	static const uint64_t wanted[4] = { 7, 700, 70000, UINT64_C(1) << 56 };
	for (int i = 0; i < 4; i++) {
		CHECK_EQ(events_of(watcher, ids[i], events, 8), 1);
		CHECK_EQ(events[0]->new_bytes, 1u << i);
		CHECK_EQ(number_of(events[0]->new_value, events[0]->new_bytes), wanted[i]);
	}
	memwatch_close(watcher);
}

TEST(neighbours_do_not_matter)
{
	static const struct memwatch_event *events[WRITES + 1];
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	uint64_t id = add_precise(watcher, &page->a, 8, "a");
	for (uint64_t i = 1; i <= WRITES; i++) {
		for (uint64_t k = 0; k < SPINS; k++)
			page->before[7] = page->b = page->after[k % 8] = i + k;
		store_one(&page->a, i);
	}
	CHECK_EQ(events_of(watcher, id, events, WRITES + 1), WRITES);
	for (int i = 0; i < WRITES; i++)
		check_exact(events[i], "store_one", gettid());
	check_chain(events, WRITES);
	struct memwatch_ledger ledger = info_of(watcher, id).ledger;
	CHECK_EQ(ledger.detected, WRITES);
	CHECK_EQ(ledger.unchanged, 0);
	memwatch_close(watcher);
}

TEST(silent_stores_count_as_unchanged)
{
	static const struct memwatch_event *events[4];
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	uint64_t id = add_precise(watcher, &page->a, 8, "a");
	store_one(&page->a, 5);
	for (int i = 0; i < SPINS; i++)
		store_other(&page->a, 5);
	store_one(&page->a, 6);
	CHECK_EQ(events_of(watcher, id, events, 4), 2);
	check_exact(events[0], "store_one", gettid());
	check_exact(events[1], "store_one", gettid());
	struct memwatch_ledger ledger = info_of(watcher, id).ledger;
	CHECK_EQ(ledger.detected, SPINS + 2);
	CHECK_EQ(ledger.unchanged, SPINS);
	CHECK_EQ(ledger.delivered, 2);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

/* --- two writers of one variable --------------------------------------------------------------------------------- */

static pthread_barrier_t start;

/* Odd values are the one's, even ones the other's. The two race, which is the point. */
static void *write_own_values(void *arg)
{
	struct job *job = arg;
	job->thread = gettid();
	pthread_barrier_wait(&start);
	for (uint64_t i = 0; i < WRITES * 10; i++)
		job->store(job->to, 2 * i + (job->store == store_one));
	return NULL;
}

TEST(an_exact_writer_wrote_the_value_that_is_told)
{
	static const struct memwatch_event *events[WRITES * 20 + 1];
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	uint64_t id = add_precise(watcher, &page->a, 8, "a");
	struct job jobs[2] = { { store_one, &page->a, 0 }, { store_other, &page->a, 0 } };
	pthread_t threads[2];
	int n_exact = 0;
	pthread_barrier_init(&start, NULL, 2);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, write_own_values, &jobs[i]), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	int n = events_of(watcher, id, events, WRITES * 20 + 1);
	check_chain(events, n);
	for (int i = 0; i < n; i++) {
		const struct memwatch_where *where = &events[i]->where;
		bool odd = number_of(events[i]->new_value, 8) & 1;
		if (where->attribution != MEMWATCH_ATTRIBUTION_EXACT)
			continue;
		n_exact++;
		CHECK_EQ(where->thread_id, jobs[!odd].thread);
		CHECK_TEXT(where->symbol, odd ? "store_one" : "store_other");
	}
	CHECK_OP(n_exact, >, 0);
	CHECK_EQ(number_of(events[n - 1]->new_value, 8), page->a);
	struct memwatch_ledger ledger = info_of(watcher, id).ledger;
	CHECK_EQ(ledger.detected, WRITES * 20);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

/* --- limits ----------------------------------------------------------------------------------------------------- */

TEST(the_fifth_is_refused_and_a_removed_one_makes_room)
{
	static const struct memwatch_event *events[8];
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	volatile uint64_t *variables[5] = { &page->a, &page->b, &page->c, &page->d, &page->e };
	char name[2] = "a";
	uint64_t ids[5];
	for (int i = 0; i < 4; i++, name[0]++)
		ids[i] = add_precise(watcher, variables[i], 8, name);
	FAILS(try_precise(watcher, &page->e, 8, "e", &ids[4]), ENOSPC);
	CHECK(strstr(memwatch_error(), "4"));
	CHECK_EQ(memwatch_region_find(watcher, "e", &ids[4]), -ENOENT);
	for (int round = 1; round <= SPINS; round++) { /* a slot that is used again tells nothing of its last region */
		store_one(&page->b, (uint64_t)round);
		OK(memwatch_region_remove(watcher, ids[1]));
		store_one(&page->b, 0);
		ids[4] = add_precise(watcher, &page->e, 8, "e");
		store_other(&page->e, (uint64_t)round);
		CHECK_EQ(events_of(watcher, ids[4], events, 8), 1);
		check_exact(events[0], "store_other", gettid());
		OK(memwatch_region_remove(watcher, ids[4]));
		ids[1] = add_precise(watcher, &page->b, 8, "b");
	}
	memwatch_close(watcher);
}

TEST(what_does_not_fit_is_refused)
{
	uint8_t *page = map_pages(1);
	memwatch *watcher = open_backend("auto");
	uint64_t id = add_precise(watcher, page, 8, "fits");
	OK(memwatch_region_remove(watcher, id));
	FAILS(try_precise(watcher, page, 3, "three", &id), EINVAL);
	FAILS(try_precise(watcher, page, 16, "sixteen", &id), EINVAL);
	FAILS(try_precise(watcher, page + 2, 4, "crooked", &id), EINVAL);
	CHECK_EQ(info_of(watcher, add_precise(watcher, page, 4, "four")).size_bytes, 4);
	memwatch_close(watcher);
}

/* --- other ways to be written ----------------------------------------------------------------------------------- */

TEST(a_kernel_write_is_found)
{
	static const struct memwatch_event *events[8];
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	uint64_t id = add_precise(watcher, &page->a, 8, "a"), value = 42;
	int ends[2];
	CHECK_EQ(pipe(ends), 0);
	store_one(&page->a, 1);
	flush(watcher);
	CHECK_EQ(write(ends[1], &value, 8), 8);
	CHECK_EQ(read(ends[0], (void *)(uintptr_t)&page->a, 8), 8);
	flush(watcher);
	store_other(&page->a, 43);
	CHECK_EQ(events_of(watcher, id, events, 8), 3);
	check_chain(events, 3);
	check_exact(events[0], "store_one", gettid());
	CHECK_EQ(number_of(events[1]->new_value, 8), 42);
	CHECK_EQ(events[1]->where.attribution, MEMWATCH_ATTRIBUTION_NONE);
	CHECK_EQ(events[1]->where.reason, MEMWATCH_REASON_KERNEL);
	CHECK_EQ(events[1]->where.thread_id, 0);
	check_exact(events[2], "store_other", gettid());
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(a_kernel_write_is_found_without_a_flush)
{
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	add_precise(watcher, &page->a, 8, "a");
	flush(watcher);
	CHECK_EQ(syscall(SYS_getrandom, (void *)(uintptr_t)&page->a, 8, 0), 8);
	CHECK_EQ(memwatch_events_wait(watcher, 0, PATIENCE_MS), 1);
	memwatch_close(watcher);
}

static void *write_blocked(void *arg)
{
	struct job *job = arg;
	sigset_t traps;
	sigemptyset(&traps);
	sigaddset(&traps, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &traps, NULL);
	for (uint64_t i = 1; i <= 5; i++)
		job->store(job->to, i);
	if (job->thread)
		pthread_sigmask(SIG_UNBLOCK, &traps, NULL);
	return NULL;
}

static void check_blocked(bool unblocks)
{
	static const struct memwatch_event *events[8];
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	uint64_t id = add_precise(watcher, &page->a, 8, "a");
	struct job job = { store_one, &page->a, unblocks };
	pthread_t thread;
	CHECK_EQ(pthread_create(&thread, NULL, write_blocked, &job), 0);
	pthread_join(thread, NULL);
	/* One event, unless a sweep came between the stores; those after its count are told with the next event. */
	uint64_t n_writes = 0;
	int n = events_of(watcher, id, events, 8);
	CHECK_OP(n, >=, 1);
	for (int i = 0; i < n; i++) {
		n_writes += 1 + events[i]->merged;
		CHECK_OP(n_writes, <=, number_of(events[i]->new_value, 8));
		CHECK_EQ(events[i]->where.reason, MEMWATCH_REASON_BLOCKED);
	}
	CHECK_EQ(number_of(events[n - 1]->new_value, 8), 5);
	store_other(&page->a, 6);
	CHECK_EQ(events_of(watcher, id, events, 8), n + 1);
	check_exact(events[n], "store_other", gettid());
	CHECK_EQ(n_writes + 1 + events[n]->merged, 6);
	CHECK_EQ(info_of(watcher, id).ledger.detected, 6);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(a_thread_that_blocks_the_signal_is_found_and_not_named)
{
	check_blocked(false);
}

TEST(a_late_signal_names_nobody)
{
	check_blocked(true);
}

TEST(a_child_of_a_fork_is_not_affected)
{
	static const struct memwatch_event *events[8];
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	uint64_t id = add_precise(watcher, &page->a, 8, "a");
	int status;
	store_one(&page->a, 1);
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		struct sigaction plain = { .sa_handler = SIG_DFL };
		sigaction(SIGTRAP, &plain, NULL); /* a signal would kill */
		for (uint64_t i = 2; i < 100; i++)
			store_one(&page->a, i);
		memwatch *own = open_backend("auto");
		uint64_t own_id = add_precise(own, &page->b, 8, "b");
		store_other(&page->b, 1);
		CHECK_EQ(events_of(own, own_id, events, 8), 1);
		check_exact(events[0], "store_other", gettid());
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	store_one(&page->a, 2);
	CHECK_EQ(events_of(watcher, id, events, 8), 2);
	check_chain(events, 2);
	check_exact(events[1], "store_one", gettid());
	memwatch_close(watcher);
}

static void *write_once(void *arg)
{
	struct job *job = arg;
	job->thread = gettid();
	job->store(job->to, *job->to + 1);
	return NULL;
}

TEST(threads_that_come_and_go_are_seen)
{
	static const struct memwatch_event *events[SPINS + 1];
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	uint64_t id = add_precise(watcher, &page->a, 8, "a");
	for (int i = 0; i < SPINS; i++) {
		struct job job = { i % 2 ? store_one : store_other, &page->a, 0 };
		pthread_t thread;
		CHECK_EQ(pthread_create(&thread, NULL, write_once, &job), 0);
		pthread_join(thread, NULL);
		CHECK_EQ(events_of(watcher, id, events, SPINS + 1), i + 1);
		check_exact(events[i], i % 2 ? "store_one" : "store_other", job.thread);
	}
	memwatch_close(watcher);
}

TEST(a_watchpoint_beside_a_region_of_the_whole_page)
{
	static const struct memwatch_event *events[8];
	struct shared_page *page = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	uint64_t id = add_precise(watcher, &page->a, 8, "a"), whole = add_region(watcher, page, PAGE, "whole");
	store_one(&page->a, 1);
	store_one(&page->a, 2);
	CHECK_EQ(events_of(watcher, id, events, 8), 2);
	CHECK_OP(events_of(watcher, whole, events, 8), >=, 1);
	CHECK_EQ(number_of(events[0]->old_value + offsetof(struct shared_page, a), 8), 0);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(a_full_ring_of_hits_is_told)
{
	static const struct memwatch_event *events[120000];
	struct shared_page *page = (void *)map_pages(1);
	struct memwatch_options options;
	memwatch_options_init(&options);
	options.window_ms = 5000;
	options.event_capacity = 120000;
	options.event_budget = 1 << 30;
	memwatch *watcher = open_with(&options);
	uint64_t id = add_precise(watcher, &page->a, 8, "a");
	for (uint64_t i = 1; i <= MANY; i++)
		store_one(&page->a, i);
	int n = events_of(watcher, id, events, 120000);
	check_chain(events, n);
	uint64_t n_told = (uint64_t)n;
	for (int i = 0; i < n; i++)
		n_told += events[i]->merged;
	CHECK_EQ(number_of(events[n - 1]->new_value, 8), MANY);
	CHECK_EQ(n_told, MANY);
	CHECK_OP(n, <, MANY);
	CHECK_EQ(info_of(watcher, id).ledger.detected, MANY);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(memory_that_vanishes_ends_the_region)
{
	static const struct memwatch_event *events[8];
	struct shared_page *page = (void *)map_pages(1), *other = (void *)map_pages(1);
	memwatch *watcher = open_backend("auto");
	uint64_t id = add_precise(watcher, &page->a, 8, "a");
	store_one(&page->a, 1);
	flush(watcher);
	munmap(page, PAGE);
	CHECK_EQ(events_of(watcher, id, events, 8), 2);
	CHECK_EQ(events[1]->kind, MEMWATCH_EVENT_LOST);
	char name[2] = "b";
	for (int i = 0; i < 4; i++, name[0]++)
		add_precise(watcher, &other->before[i], 8, name);
	check_ledgers(watcher);
	memwatch_close(watcher);
}
