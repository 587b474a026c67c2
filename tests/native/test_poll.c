/*
 * test_poll.c -- polled memory: the schedule under a clock of the test's own, then the watcher that looks by it.
 */
#include "watching.h"

#include "fault/table.h"

#define MS UINT64_C(1000000)

enum { BLOCK = 16 << 10, BLOCKS = 4096, HOT_MOST = 256, CACHED_MS = 50 };

static const uint64_t base_address = UINT64_C(1) << 32; /* nothing is read there: the schedule looks at no memory */
static const double budget = 0.01;

/* A machine that compares at two fixed speeds. */
static struct {
	double ns_per_byte;
	double cached_ns_per_byte;   /* what was looked at a moment ago; 0: the same */
	uint64_t wake_ns, change_ns; /* what a wake-up and the telling of a change cost */
	unsigned n_changes;          /* to be found by the next look */
	unsigned changed[2 * HOT_MOST];
	uint64_t now_ns, spent_ns, bytes, worst_gap_ns;
	double compare_ns; /* of the part under way */
	uint64_t seen_ns[BLOCKS];
	uint64_t n_takes;
} sim;

static uint64_t address_of(unsigned block)
{
	return base_address + (uint64_t)block * BLOCK;
}

static void begin(unsigned n_blocks)
{
	char note[200];
	sim = (typeof(sim)){ .now_ns = 1000 * MS, .ns_per_byte = 0.14 };
	OK(fault_poll.open(NULL, note, sizeof note));
	OK(fault_poll.arm((struct span){ base_address, address_of(n_blocks) }));
	for (unsigned i = 0; i < BLOCKS; i++)
		sim.seen_ns[i] = sim.now_ns;
}

static void look_at(const struct span *span)
{
	sim.bytes += span->end - span->start;
	for (uint64_t at = span->start; at < span->end; at += BLOCK) {
		uint64_t *seen_ns = &sim.seen_ns[(at - base_address) / BLOCK], gap_ns = sim.now_ns - *seen_ns;
		bool is_cached = sim.cached_ns_per_byte > 0 && gap_ns < CACHED_MS * MS;
		sim.compare_ns += BLOCK * (is_cached ? sim.cached_ns_per_byte : sim.ns_per_byte);
		sim.worst_gap_ns = gap_ns > sim.worst_gap_ns ? gap_ns : sim.worst_gap_ns;
		*seen_ns = sim.now_ns;
	}
}

static void change(unsigned block)
{
	fault_poll.turns->changed(address_of(block) + 100, address_of(block) + 101, sim.now_ns);
}

static void take_part(enum look_part part)
{
	struct span_list looks = { 0 };
	fault_poll.turns->take(part, sim.now_ns, &looks);
	if (!looks.n)
		return;
	sim.compare_ns = 0;
	for (size_t i = 0; i < looks.n; i++)
		look_at(&looks.spans[i]);
	struct look_cost cost = { .compare_ns = (uint64_t)sim.compare_ns, .tell_ns = sim.n_changes * sim.change_ns };
	while (sim.n_changes)
		change(sim.changed[--sim.n_changes]);
	fault_poll.turns->charge(part, cost);
	sim.spent_ns += cost.compare_ns + cost.tell_ns;
	span_list_fini(&looks);
}

/* One look; time goes on to the next. */
static void tick(void)
{
	CHECK(fault_poll.turns->begin(sim.now_ns, budget, sim.wake_ns));
	sim.spent_ns += sim.wake_ns;
	for (enum look_part part = 0; part < LOOK_PARTS; part++)
		take_part(part);
	sim.n_takes++;
	uint64_t next_ns = fault_poll.turns->end(sim.now_ns, budget, 5 * MS);
	CHECK_OP(next_ns, >, sim.now_ns);
	sim.now_ns = next_ns;
}

static void run_for(uint64_t ms)
{
	for (uint64_t end_ns = sim.now_ns + ms * MS; sim.now_ns < end_ns;)
		tick();
}

static double share_of(uint64_t since_ns, uint64_t spent_before_ns)
{
	return (double)(sim.spent_ns - spent_before_ns) / (double)(sim.now_ns - since_ns);
}

TEST(the_budget_is_kept_and_every_block_has_its_turn)
{
	begin(BLOCKS);
	run_for(60000);
	uint64_t round_ms = fault_poll.turns->round_ns(budget) / MS;
	CHECK(share_of(1000 * MS, 0) <= budget * 1.05);
	CHECK(share_of(1000 * MS, 0) >= budget * 0.8);
	CHECK_OP(sim.worst_gap_ns / MS, <=, round_ms + 100);
	CHECK_OP(round_ms, <, 1500);
}

TEST(a_block_that_changed_is_looked_at_with_every_tick)
{
	begin(BLOCKS);
	run_for(5000);
	change(7);
	uint64_t start_ns = sim.now_ns;
	tick();
	for (sim.worst_gap_ns = 0; sim.now_ns < start_ns + 450 * MS;) {
		tick();
		CHECK_OP(sim.now_ns - sim.seen_ns[7], <=, 20 * MS);
	}
	run_for(3000); /* nothing more: it is as all others */
	CHECK_OP(fault_poll.turns->round_ns(budget) / MS, <, 1500);
}

TEST(hot_blocks_leave_half_of_the_budget_to_the_others)
{
	begin(BLOCKS);
	run_for(5000);
	uint64_t since_ns = sim.now_ns, spent_ns = sim.spent_ns;
	sim.worst_gap_ns = 0;
	while (sim.now_ns < since_ns + 30000 * MS) {
		for (unsigned i = 0; i < 2 * HOT_MOST; i++)
			change(i * 8 % BLOCKS);
		tick();
	}
	CHECK(share_of(since_ns, spent_ns) <= budget * 1.1);
	CHECK_OP(sim.worst_gap_ns / MS, <=, 3500);
	CHECK_OP(sim.worst_gap_ns, <=, fault_poll.turns->round_ns(budget) + 1000 * MS);
}

/* What is in the cache is not paid for as if it came from memory, nor does it make memory seem cheap. */
TEST(hot_blocks_are_looked_at_for_what_they_cost)
{
	uint64_t worst_hot_ns = 0;
	begin(BLOCKS);
	sim.wake_ns = 15000;
	sim.cached_ns_per_byte = sim.ns_per_byte / 4;
	run_for(5000);
	uint64_t since_ns = sim.now_ns, spent_ns = sim.spent_ns;
	sim.worst_gap_ns = 0;
	while (sim.now_ns < since_ns + 30000 * MS) {
		for (unsigned i = 0; i < 24; i++)
			change(i * 170);
		tick();
		for (unsigned i = 0; i < 24 && sim.now_ns > since_ns + 1000 * MS; i++) {
			uint64_t gap_ns = sim.now_ns - sim.seen_ns[i * 170];
			worst_hot_ns = gap_ns > worst_hot_ns ? gap_ns : worst_hot_ns;
		}
	}
	CHECK_OP(worst_hot_ns / MS, <=, 8);
	CHECK_OP(sim.worst_gap_ns / MS, <=, 2000);
	CHECK(share_of(since_ns, spent_ns) <= budget * 1.25);
}

/* Looks at a few of them each would cost as many wake-ups as looks at all. */
TEST(where_hot_blocks_are_dear_a_look_waits_until_all_are_paid_for)
{
	begin(BLOCKS);
	sim.wake_ns = 40000;
	sim.ns_per_byte = 0.5;
	run_for(5000);
	for (uint64_t end_ns = sim.now_ns + 1000 * MS; sim.now_ns < end_ns; tick())
		for (unsigned i = 0; i < 24; i++)
			change(i * 170);
	sim.n_takes = 0;
	uint64_t since_ns = sim.now_ns, spent_ns = sim.spent_ns;
	while (sim.now_ns < since_ns + 10000 * MS) {
		for (unsigned i = 0; i < 24; i++)
			change(i * 170);
		tick();
	}
	CHECK_OP(sim.n_takes, <=, 300);
	CHECK_OP(sim.n_takes, >=, 180);
	CHECK(share_of(since_ns, spent_ns) <= budget * 1.25);
}

/* The promise follows the machine: an emulated one, or one whose CPUs are busy elsewhere. */
TEST(a_slow_machine_promises_less)
{
	begin(64);
	sim.ns_per_byte = 30;
	sim.changed[sim.n_changes++] = 3; /* as the first look finds it */
	run_for(1500);                    /* no round is over */
	CHECK_OP(fault_poll.turns->round_ns(budget) / MS, >, 2500);
	run_for(20000);
	sim.worst_gap_ns = 0;
	run_for(30000);
	uint64_t promised_ms = fault_poll.turns->round_ns(budget) / MS;
	CHECK(share_of(1000 * MS, 0) <= budget * 1.05);
	CHECK_OP(promised_ms, >, 2500);
	CHECK_OP(sim.worst_gap_ns / MS, <=, promised_ms + 100);
}

/* Neither the wake-ups nor the telling of changes make bytes seem dear: looks would become smaller and smaller. */
TEST(a_small_watch_that_changes_is_looked_at_in_large_parts)
{
	begin(64);
	sim.wake_ns = 40000;
	sim.change_ns = 100000;
	uint64_t round_ns = 0;
	for (uint64_t end_ns = sim.now_ns + 30000 * MS, due_ns = 0; sim.now_ns < end_ns;) {
		if (sim.now_ns >= due_ns) {
			sim.changed[sim.n_changes++] = (unsigned)(due_ns / MS * 7 % 64);
			due_ns = sim.now_ns + 50 * MS;
		}
		tick();
		round_ns = fault_poll.turns->round_ns(budget) > round_ns ? fault_poll.turns->round_ns(budget)
									 : round_ns;
	}
	CHECK(share_of(1000 * MS, 0) <= budget * 1.25);
	CHECK_OP(sim.worst_gap_ns / MS, <=, 150);
	CHECK_OP(round_ns / MS, <=, 150);
}

/* One look that took long is paid for at the budget's rate: neither sooner nor much later. */
TEST(a_debt_is_paid_back_in_time)
{
	begin(64);
	run_for(1000);
	uint64_t start_ns = sim.now_ns;
	sim.change_ns = 20 * MS;
	sim.changed[sim.n_changes++] = 3;
	tick();
	CHECK_OP(fault_poll.turns->round_ns(budget) / MS, >=, 1800); /* and the promise says so */
	sim.bytes = 0;
	while (!sim.bytes)
		tick();
	CHECK_OP((sim.now_ns - start_ns) / MS, >=, 1900);
	CHECK_OP((sim.now_ns - start_ns) / MS, <=, 3200);
}

TEST(where_wake_ups_are_dear_there_are_few)
{
	begin(64);
	sim.wake_ns = MS;
	change(3);
	run_for(30000);
	CHECK(share_of(1000 * MS, 0) <= budget * 1.25);
	CHECK_OP(sim.n_takes, <=, 250);
	CHECK_OP(sim.n_takes, >=, 120);
}

TEST(at_rest_the_ticks_come_more_rarely)
{
	begin(64);
	change(3);
	run_for(1000);
	CHECK_OP(sim.n_takes, >, 100);
	run_for(2000);
	sim.n_takes = 0;
	run_for(10000);
	CHECK_OP(sim.n_takes, <=, 201);
	CHECK_OP(sim.worst_gap_ns / MS, <=, 110);
}

TEST(without_memory_nothing_is_looked_at)
{
	begin(8);
	tick();
	fault_poll.disarm((struct span){ base_address, address_of(8) });
	CHECK(!fault_poll.turns->begin(sim.now_ns, budget, 0));
	CHECK_EQ(fault_poll.turns->round_ns(budget), 0);
}

/* --- the watcher ------------------------------------------------------------------------------------------------- */

TEST(polled_memory_is_told_without_a_flush)
{
	struct memwatch_options options;
	memwatch *watcher;
	memwatch_options_init(&options);
	options.backend = "poll";
	options.poll_budget = 0.5;
	OK(memwatch_open(&options, &watcher));
	CHECK_EQ(stats_of(watcher).polled_bytes, 0);
	CHECK_EQ(stats_of(watcher).poll_round_ms, 0);
	uint8_t *memory = map_pages(1024);
	add_region(watcher, memory, 1024 * PAGE, "memory");
	for (int round = 1; round <= 20; round++) {
		poke(memory + round * 50 * PAGE, 1);
		OK(memwatch_events_wait(watcher, (uint64_t)round - 1, PATIENCE_MS));
		CHECK_EQ(stats_of(watcher).events_newest, round);
	}
	struct memwatch_stats stats = stats_of(watcher);
	CHECK_EQ(stats.polled_bytes, 1024 * PAGE);
	CHECK_OP(stats.poll_round_ms, >, 0);
	CHECK(stats.poll_budget == 0.5);
	CHECK_EQ(stats.reason_by[MEMWATCH_REASON_POLLING], 20);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

/* Read many at a time: what changed, and what is gone, is told all the same, and nothing else. */
TEST(small_polled_regions_each_have_their_own_fate)
{
	enum { N = 300, GAP = 1364, SIZE = 12 }; /* three a page, and a fourth across its end */
	struct memwatch_options options;
	memwatch *watcher;
	uint64_t ids[N], seen = 0;
	memwatch_options_init(&options);
	options.backend = "poll";
	options.poll_budget = 0.5;
	OK(memwatch_open(&options, &watcher));
	uint8_t *memory = map_pages(101);
	for (int i = 0; i < N; i++) {
		char name[24];
		snprintf(name, sizeof name, "small%d", i);
		ids[i] = add_region(watcher, memory + PAGE + i * GAP, SIZE, name);
	}
	for (int i = 0; i < N; i += 7) {
		poke(memory + PAGE + i * GAP + i % SIZE, (uint8_t)(i + 1));
		OK(memwatch_events_wait(watcher, seen++, PATIENCE_MS));
		const struct memwatch_event *event = last_event(watcher, ids[i]);
		CHECK_EQ(event->seq, seen);
		CHECK_EQ(event->changes[0].offset, i % SIZE);
		CHECK_EQ(event->new_value[i % SIZE], (uint8_t)(i + 1));
		memwatch_event_unref(event);
	}
	munmap(memory, 2 * PAGE);
	for (int i = 0; i < 4; i++)
		OK(memwatch_events_wait(watcher, seen++, PATIENCE_MS));
	for (int i = 0; i < 5; i++)
		CHECK_EQ(has_lost(watcher, ids[i]), i < 4);
	poke(memory + PAGE + 100 * GAP, 99);
	OK(memwatch_events_wait(watcher, seen++, PATIENCE_MS));
	const struct memwatch_event *event = last_event(watcher, ids[100]);
	CHECK_EQ(event->new_value[0], 99);
	memwatch_event_unref(event);
	CHECK_EQ(stats_of(watcher).events_newest, seen);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(much_polled_memory_is_worth_a_word_in_the_note)
{
	struct memwatch_region_options region_options;
	struct memwatch_options options;
	memwatch *watcher;
	memwatch_options_init(&options);
	options.backend = "poll";
	OK(memwatch_open(&options, &watcher));
	uint64_t pages = ((uint64_t)256 << 20) / PAGE;
	uint8_t *memory = map_pages(pages);
	memwatch_region_options_init(&region_options);
	region_options.flags = MEMWATCH_REGION_HASHED;
	OK(memwatch_region_add(watcher, memory, (pages - 1) * PAGE, &region_options, NULL));
	CHECK(!strstr(stats_of(watcher).attribution_note, "late"));
	OK(memwatch_region_add(watcher, memory + (pages - 1) * PAGE, PAGE, &region_options, NULL));
	CHECK(strstr(stats_of(watcher).attribution_note, "; 256 MiB are polled: a change may be told up to "));
	memwatch_close(watcher);
}

TEST(a_flush_looks_at_everything_whatever_the_budget_is)
{
	struct memwatch_options options;
	memwatch *watcher;
	memwatch_options_init(&options);
	options.backend = "poll";
	options.poll_budget = 0.0001;
	OK(memwatch_open(&options, &watcher));
	uint8_t *memory = map_pages(4096);
	add_region(watcher, memory, 4096 * PAGE, "memory");
	flush(watcher);
	poke(memory + 4000 * PAGE, 1);
	poke(memory + 100 * PAGE, 1);
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_EQ(event->changed_bytes, 2);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

TEST(a_budget_for_polling_out_of_range_is_refused)
{
	static const double wrong[] = { 0, -1, 1.5 };
	struct memwatch_options options;
	memwatch *watcher;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		memwatch_options_init(&options);
		options.poll_budget = wrong[i];
		FAILS(memwatch_open(&options, &watcher), EINVAL);
	}
	memwatch_options_init(&options);
	CHECK(options.poll_budget == 0.01);
}
