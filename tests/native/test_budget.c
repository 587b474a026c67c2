/*
 * test_budget.c -- what attribution may cost: storms of page faults without the filter in the kernel, and neighbours of
 * a small object. The account of signals and steps is what is checked, since it does not depend on how busy the machine
 * is.
 */
#include "watching.h"

#include <grp.h>
#include <sys/prctl.h>

/* What the library reckons with, in ns: see sigtrap.c. */
enum { PERIOD_NS = 100000000, SIGNAL_COST_NS = 4500, STEP_COST_NS = 17000, BUDGET_PERCENT = 1 };

/* The times that a cost may be paid in so many seconds; a period more at either end, for those that are cut. */
static double affordable(double elapsed_s, double cost_ns)
{
	return (elapsed_s * 1e9 / PERIOD_NS + 2) * PERIOD_NS * BUDGET_PERCENT / 100 / cost_ns;
}

static double thread_cpu_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Gives up the right to load a filter; the process may still look at its own pages. */
static void become_nobody(void)
{
	enum { NOBODY = 65534 };
	if (geteuid() == 0)
		CHECK(setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
		      setresuid(NOBODY, NOBODY, NOBODY) == 0);
	prctl(PR_SET_DUMPABLE, 1);
}

static memwatch *open_default(void)
{
	struct memwatch_options options;
	memwatch_options_init(&options);
	options.backend = "uffd";
	memwatch *watcher = open_with(&options);
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	return watcher;
}

/* Writers on functions of their own. */
__attribute__((noinline, noclone)) static void write_own(volatile uint32_t *to, uint32_t value)
{
	*to = value;
}

__attribute__((noinline, noclone)) static void write_neighbour(volatile uint32_t *to, uint32_t value)
{
	*to = value;
}

/* --- storms ----------------------------------------------------------------------------------------------------- */

/* Fresh memory, touched page by page. */
static void storm(void)
{
	enum { N = 512 };
	uint8_t *fresh = map_pages(N);
	madvise(fresh, (size_t)N * PAGE, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < N; i++)
		poke(fresh + i * PAGE, 1);
	munmap(fresh, (size_t)N * PAGE);
}

/* Writes and waits for the event; was it the writer's? */
static bool is_exact_after_write(memwatch *watcher, uint64_t since, uint32_t *to, uint32_t value)
{
	write_own(to, value);
	const struct memwatch_event *event = only_event(watcher, since);
	const struct memwatch_where *where = &event->where;
	bool exact = where->attribution == MEMWATCH_ATTRIBUTION_EXACT;
	CHECK(memcmp(event->new_value, &value, sizeof value) == 0);
	if (exact)
		CHECK_TEXT(where->symbol, "write_own");
	else
		CHECK_EQ(where->reason, MEMWATCH_REASON_THROTTLED);
	memwatch_event_unref(event);
	return exact;
}

/* All is detected, the signals stay within the budget, and authors come back by themselves. */
TEST(a_storm_without_a_filter_stays_within_the_budget)
{
	become_nobody();
	enum { SIZE = 64 };
	uint32_t *variable = (uint32_t *)(void *)map_pages(1), n_writes = 0, n_exact = 0;
	double start_s = harness_now_s();
	memwatch *watcher = open_default();
	if (stats_of(watcher).attribution_filtered)
		SKIP("an ordinary user may load a filter here");
	add_unlent(watcher, variable, SIZE, "a");
	for (; harness_now_s() < start_s + 2; n_writes++) {
		storm();
		n_exact += is_exact_after_write(watcher, n_writes, variable, n_writes + 1);
	}
	double elapsed_s = harness_now_s() - start_s;
	struct memwatch_stats stats = stats_of(watcher);
	fprintf(stderr, "%u of %u exact, %llu signals in %.1f s\n", n_exact, n_writes,
		(unsigned long long)stats.signals, elapsed_s);
	CHECK_OP(stats.signals_foreign, >, 0);
	CHECK_OP(stats.throttled_ns, >, 0);
	CHECK_OP(n_exact, <, n_writes);
	CHECK_OP(stats.signals_foreign, <=, 1.5 * affordable(elapsed_s, SIGNAL_COST_NS));
	for (double end_s = harness_now_s() + PATIENCE_MS / 1000.0;
	     !is_exact_after_write(watcher, n_writes, variable, n_writes + 1); n_writes++)
		CHECK(harness_now_s() < end_s);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

/* --- neighbours ------------------------------------------------------------------------------------------------- */

enum { OBJECT = 16, OBJECTS = PAGE / OBJECT, OWN = 100 };

/* A thread that writes to objects of one page, except the one that is watched, in bursts at an even rate. */
struct neighbours {
	uint32_t *page;
	unsigned burst;
	double interval_s;
	_Atomic bool stop;
	_Atomic uint64_t n_writes;
	double cpu_s;
};

static void *write_neighbours(void *arg)
{
	struct neighbours *n = arg;
	double cpu_s = thread_cpu_s();
	for (uint32_t i = 0; !atomic_load(&n->stop); i++) {
		for (unsigned k = 0; k < n->burst; k++) {
			unsigned object = (i * n->burst + k) * 37 % OBJECTS;
			write_neighbour(n->page + (object == OWN ? 0 : object) * OBJECT / sizeof *n->page, i + 1);
		}
		atomic_fetch_add(&n->n_writes, n->burst);
		if (n->interval_s > 0)
			usleep((useconds_t)(n->interval_s * 1e6));
	}
	n->cpu_s = thread_cpu_s() - cpu_s;
	return NULL;
}

struct answers {
	unsigned n_events, n_exact;
};

/* Writes to the object now and then, until `until` says so. No answer is wrong. */
static struct answers write_object(memwatch *watcher, uint32_t *page, unsigned n_writes)
{
	struct answers answers = { 0 };
	for (uint32_t i = 0; i < n_writes; i++) {
		uint64_t since = newest(watcher);
		usleep(7000);
		write_own(page + OWN * OBJECT / sizeof *page, i + 1);
		const struct memwatch_event *event = only_event(watcher, since);
		answers.n_events++;
		if (event->where.attribution == MEMWATCH_ATTRIBUTION_EXACT) {
			CHECK_TEXT(event->where.symbol, "write_own");
			answers.n_exact++;
		}
		memwatch_event_unref(event);
	}
	return answers;
}

TEST(an_object_beside_neighbours_at_a_walk_keeps_its_author)
{
	enum { RATE = 300, N = 300 };
	struct neighbours neighbours = { .page = (uint32_t *)(void *)map_pages(1),
					 .burst = 1,
					 .interval_s = 1.0 / RATE };
	pthread_t thread;
	memwatch *watcher = open_default();
	add_region(watcher, neighbours.page + OWN * OBJECT / sizeof *neighbours.page, OBJECT, "a");
	CHECK(pthread_create(&thread, NULL, write_neighbours, &neighbours) == 0);
	struct answers answers = write_object(watcher, neighbours.page, N);
	atomic_store(&neighbours.stop, true);
	pthread_join(thread, NULL);
	fprintf(stderr, "%u of %u exact, %llu writes of neighbours, %llu stepped\n", answers.n_exact, answers.n_events,
		(unsigned long long)neighbours.n_writes, (unsigned long long)stats_of(watcher).stepped);
	CHECK_OP(stats_of(watcher).stepped, >, 0);
	CHECK_OP(answers.n_exact, >=, 0.95 * answers.n_events);
	memwatch_close(watcher);
}

TEST(neighbours_at_a_run_are_slowed_by_the_budget_at_most)
{
	enum { RATE = 100000, BURST = 100, N = 200 };
	uint32_t *page = (uint32_t *)(void *)map_pages(1);
	struct neighbours unwatched = { .page = page, .burst = BURST, .interval_s = (double)BURST / RATE };
	struct neighbours neighbours = unwatched;
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, write_neighbours, &unwatched) == 0);
	usleep(1000 * 1000);
	atomic_store(&unwatched.stop, true);
	pthread_join(thread, NULL);
	memwatch *watcher = open_default();
	add_region(watcher, page + OWN * OBJECT / sizeof *page, OBJECT, "a");
	double start_s = harness_now_s();
	CHECK(pthread_create(&thread, NULL, write_neighbours, &neighbours) == 0);
	struct answers answers = write_object(watcher, page, N);
	atomic_store(&neighbours.stop, true);
	pthread_join(thread, NULL);
	double elapsed_s = harness_now_s() - start_s;
	struct memwatch_stats stats = stats_of(watcher);
	double before_s = unwatched.cpu_s / (double)unwatched.n_writes,
	       after_s = neighbours.cpu_s / (double)neighbours.n_writes;
	fprintf(stderr, "%u of %u exact, %llu stepped in %.1f s, a write %.0f ns before and %.0f ns after\n",
		answers.n_exact, answers.n_events, (unsigned long long)stats.stepped, elapsed_s, before_s * 1e9,
		after_s * 1e9);
	CHECK_OP(stats.stepped, <=, 1.5 * affordable(elapsed_s, STEP_COST_NS));
	/*
	 * 1 % of a core over 100,000 writes a second is 100 ns a write; on a busy machine a signal costs some times as
	 * much.
	 */
	CHECK(after_s < 3 * before_s + 500e-9);
	memwatch_close(watcher);
}

/*
 * While a neighbour is stepped over the page is open to all, and nothing but the step's own mark tells of what was
 * written.
 */
TEST(a_flush_finds_what_was_written_during_a_step)
{
	enum { N = 20000 };
	struct neighbours neighbours = { .page = (uint32_t *)(void *)map_pages(1), .burst = 50 };
	pthread_t thread;
	memwatch *watcher = open_backend("uffd");
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	uint32_t *object = neighbours.page + OWN * OBJECT / sizeof *neighbours.page, known[OBJECT / sizeof *object];
	uint64_t id = add_region(watcher, object, OBJECT, "a");
	CHECK(pthread_create(&thread, NULL, write_neighbours, &neighbours) == 0);
	for (uint32_t i = 0; i < N; i++) {
		write_own(object, i + 1);
		flush(watcher);
		CHECK_EQ(memwatch_region_read(watcher, id, known, sizeof known), sizeof known);
		CHECK_EQ(known[0], i + 1);
	}
	atomic_store(&neighbours.stop, true);
	pthread_join(thread, NULL);
	fprintf(stderr, "%llu stepped\n", (unsigned long long)stats_of(watcher).stepped);
	CHECK_OP(stats_of(watcher).stepped, >, N / 100);
	memwatch_close(watcher);
}

/* --- steps and the host's signals ------------------------------------------------------------------------------- */

static uint32_t *volatile also_contested;
static volatile sig_atomic_t n_signals;

static void write_in_handler(int signal)
{
	(void)signal;
	n_signals++;
	write_neighbour(also_contested, (uint32_t)n_signals);
}

struct sender {
	pthread_t target;
	_Atomic bool stop;
};

static void *send_signals(void *arg)
{
	struct sender *sender = arg;
	while (!atomic_load(&sender->stop))
		pthread_kill(sender->target, SIGUSR1);
	return NULL;
}

/* A signal may come between a fault and the step after it, and its handler may step too. */
TEST(a_step_in_a_handler_that_interrupts_a_step)
{
	enum { N = 20000 };
	SKIP_UNDER(UNDER_TSAN);
	uint32_t *pages = (uint32_t *)(void *)map_pages(2);
	struct sigaction action = { .sa_handler = write_in_handler, .sa_flags = SA_RESTART };
	struct sender sender = { .target = pthread_self() };
	pthread_t thread;
	memwatch *watcher = open_backend("uffd");
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	also_contested = pages + PAGE / sizeof *pages;
	add_region(watcher, pages + OWN * OBJECT / sizeof *pages, OBJECT, "a");
	add_region(watcher, also_contested + OWN * OBJECT / sizeof *pages, OBJECT, "b");
	CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
	CHECK(pthread_create(&thread, NULL, send_signals, &sender) == 0);
	for (uint32_t i = 0; i < N || n_signals < N / 20; i++)
		write_neighbour(pages, i + 1);
	atomic_store(&sender.stop, true);
	pthread_join(thread, NULL);
	CHECK_OP(stats_of(watcher).stepped, >, N);
	memwatch_close(watcher);
}
