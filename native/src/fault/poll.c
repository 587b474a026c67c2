/*
 * poll.c -- DESIGN: memory is compared, in blocks, and the diff decides. Needs nothing, sees what lasts, knows no
 * author. Also takes the pages that other backends cannot arm. Everything runs under the engine's lock, on the worker's
 * or a caller's thread.
 *
 * Comparing costs CPU for as long as memory is watched, so it has a budget: a share of one core, earned as time goes
 * by, spent by looks. A block that changed is hot: looked at with every tick for a while, longer with each further
 * change, since what changed lately changes again. Hot blocks get at most half of the budget; the rest goes round all
 * blocks. So a block waits for its turn at most twice as long as a round would take without hot ones. At rest the ticks
 * come more rarely, with as much to spend.
 *
 * What a look costs has parts that are learned apart: the wake-up, each byte, and what is told of changes. Were they
 * one price, a small look would make bytes seem dear, and so the next look smaller still. Bytes have two prices, and a
 * look two parts: a hot block was compared a tick ago, and what is still in the CPU's cache costs a fraction of what
 * comes from memory. Hot blocks get half of a look at most, and what they do not need is the others'. They come second:
 * code and data of the comparison itself are warm by then, and their price is that of their bytes.
 *
 * A look compares for as long as its wake-up took at least. All is paid for, but for wake-ups up to a fifth of the
 * budget, which come on top; they take half of the budget at most beside that, being rarer where they are dear. They
 * are rarer, too, where half of what is earned meanwhile would not pay for all hot blocks: two looks at some of them
 * find nothing sooner than one look at all, and cost a wake-up more.
 *
 * Loss: what is undone before its block's turn is not seen. Without memory for the list of looks the next tick takes
 * the same.
 */
#include "fault.h"

enum {
	BLOCK_BYTES = 16 << 10,
	HOT_BLOCKS = 256,
	TICK_MS = 5,
	REST_TICK_MS = 50, /* after REST_MS without a change */
	REST_MS = 2000,
	HOT_FIRST_MS = 500, /* how long a block is hot after its first change; doubled with each further one */
	HOT_MOST_MS = 4000,
	SAVED_MAX_MS = 100,   /* or two ticks; a worker that was kept from looking does not make up for more */
	WAKE_SHARE = 5,       /* wake-ups cost nothing up to this part of the budget: it is meant for the looks */
	COSTS_KEPT = 16,      /* about so many looks make the prices */
	FIRST_BYTES = 1 << 10 /* the weight of the first guess */
};

static const double FIRST_NS_PER_BYTE = 1, FIRST_WAKE_NS = 20000;

struct hot_block {
	uint64_t start, until_ns, keep_ns;
};

/* For how many bytes it took how long of late: sums that fade. */
struct price {
	double ns, bytes;
};

static struct page_set pages;

/* Under the engine's lock. */
static struct {
	struct hot_block hot[HOT_BLOCKS];
	unsigned n_hot, next_hot;
	uint64_t next; /* where the round goes on */
	uint64_t last_look_ns, round_start_ns, last_round_ns, last_change_ns;
	uint64_t taken_bytes; /* by the last take */
	uint64_t tick_ns;
	double credit_ns;               /* CPU time that looks may cost now; below 0: owed */
	double wake_ns;                 /* what a wake-up costs of late */
	double may_cost_ns[LOOK_PARTS]; /* of the look under way; 0: it is not paid for */
	struct price prices[LOOK_PARTS];
} turn;

static int open_poll(struct ring *ring, char *note, size_t note_size)
{
	(void)ring, (void)note, (void)note_size;
	turn = (typeof(turn)){
		.wake_ns = FIRST_WAKE_NS,
		.prices = { { FIRST_NS_PER_BYTE * FIRST_BYTES, FIRST_BYTES },
			    { FIRST_NS_PER_BYTE * FIRST_BYTES, FIRST_BYTES } },
	};
	return 0;
}

static void close_poll(void)
{
}

static int arm(struct span span)
{
	return page_set_add(&pages, span);
}

static void disarm(struct span span)
{
	page_set_remove(&pages, span);
}

static int collect(struct span span, struct span_list *written)
{
	return span_list_add(written, span.start, span.end);
}

static uint64_t block_of(uint64_t address)
{
	return address & ~(uint64_t)(BLOCK_BYTES - 1);
}

/* The first block that begins at or after the address. */
static uint64_t block_after(uint64_t address)
{
	return block_of(address + BLOCK_BYTES - 1);
}

static uint64_t watched_bytes(void)
{
	return atomic_load(&pages.n_pages) * PAGE_BYTES;
}

/* The watched pages of [from, end). */
static bool take_pages(uint64_t from, uint64_t end, struct span_list *looks)
{
	struct span run;
	for (uint64_t at = from; page_set_next(&pages, at, end, &run); at = run.end) {
		if (span_list_add(looks, run.start, run.end))
			return false;
		turn.taken_bytes += run.end - run.start;
	}
	return true;
}

/* Hot blocks in turn, those whose time is over leave. */
static void take_hot(uint64_t now_ns, uint64_t most_bytes, struct span_list *looks)
{
	for (unsigned n = turn.n_hot; n && turn.taken_bytes < most_bytes; n--) {
		turn.next_hot = turn.next_hot < turn.n_hot ? turn.next_hot : 0;
		struct hot_block *hot = &turn.hot[turn.next_hot];
		if (!take_pages(hot->start, hot->start + BLOCK_BYTES, looks))
			return;
		if (now_ns > hot->until_ns)
			*hot = turn.hot[--turn.n_hot];
		else
			turn.next_hot++;
	}
}

static void end_round(uint64_t now_ns)
{
	turn.last_round_ns = now_ns - turn.round_start_ns;
	turn.round_start_ns = now_ns;
}

/* From where the last take stopped, in whole blocks, once round at most. */
static void take_round(uint64_t now_ns, uint64_t most_bytes, struct span_list *looks)
{
	struct span run;
	uint64_t all = watched_bytes(), before = turn.taken_bytes;
	for (uint64_t taken = 0; taken < all && turn.taken_bytes < most_bytes; taken = turn.taken_bytes - before) {
		uint64_t want = min_u64(most_bytes - turn.taken_bytes, all - taken);
		/* Where the next page is known, no more of its run is looked up than is wanted: runs are long. */
		uint64_t end = page_set_has(&pages, turn.next) ? block_after(turn.next + want) : ADDRESS_END;
		if (!page_set_next(&pages, turn.next, end, &run)) {
			end_round(now_ns);
			turn.next = 0;
			continue;
		}
		run.end = min_u64(run.end, block_after(run.start + want));
		if (span_list_add(looks, run.start, run.end))
			return;
		turn.taken_bytes += run.end - run.start;
		turn.next = run.end;
	}
}

static double ns_per_byte(enum look_part part)
{
	return turn.prices[part].ns / turn.prices[part].bytes;
}

/* What has been earned since the last look. */
static void earn(uint64_t passed_ns, double share)
{
	double most_ns = (double)max_u64(SAVED_MAX_MS * NS_PER_MS, 2 * turn.tick_ns) * share;
	turn.credit_ns += (double)passed_ns * share;
	turn.credit_ns = turn.credit_ns < most_ns ? turn.credit_ns : most_ns;
}

/* What it costs to look at all hot blocks. */
static double hot_need_ns(void)
{
	return turn.n_hot * BLOCK_BYTES * ns_per_byte(LOOK_HOT);
}

/* What the parts of a look may cost that may cost so much in all. */
static void share_out(double left_ns)
{
	double need_ns = hot_need_ns();
	turn.may_cost_ns[LOOK_HOT] = need_ns < left_ns / 2 ? need_ns : left_ns / 2;
	turn.may_cost_ns[LOOK_ROUND] = left_ns - turn.may_cost_ns[LOOK_HOT];
}

static bool begin(uint64_t now_ns, double share, uint64_t wake_ns)
{
	if (!watched_bytes()) {
		turn.last_look_ns = turn.round_start_ns = 0;
		return false;
	}
	uint64_t passed_ns = turn.last_look_ns ? now_ns - turn.last_look_ns : TICK_MS * NS_PER_MS;
	double charged_ns = (double)wake_ns - (double)passed_ns * share / WAKE_SHARE;
	turn.last_look_ns = now_ns;
	turn.round_start_ns = turn.round_start_ns ? turn.round_start_ns : now_ns;
	turn.wake_ns += ((double)wake_ns - turn.wake_ns) / COSTS_KEPT;
	earn(passed_ns, share);
	bool is_paid = turn.credit_ns > 0;
	turn.credit_ns -= charged_ns > 0 ? charged_ns : 0;
	share_out(!is_paid ? 0 : turn.credit_ns > turn.wake_ns ? turn.credit_ns : turn.wake_ns);
	return true;
}

static void take(enum look_part part, uint64_t now_ns, struct span_list *looks)
{
	turn.taken_bytes = 0;
	if (turn.may_cost_ns[part] <= 0)
		return;
	uint64_t most_bytes = (uint64_t)(turn.may_cost_ns[part] / ns_per_byte(part)) + 1;
	if (part == LOOK_HOT)
		take_hot(now_ns, most_bytes, looks);
	else
		take_round(now_ns, most_bytes, looks);
}

static void charge(enum look_part part, struct look_cost cost)
{
	struct price *price = &turn.prices[part];
	if (turn.taken_bytes) {
		price->ns += (double)cost.compare_ns - price->ns / COSTS_KEPT;
		price->bytes += (double)turn.taken_bytes - price->bytes / COSTS_KEPT;
	}
	turn.credit_ns -= (double)(cost.compare_ns + cost.tell_ns);
}

/* How long it takes to earn what is owed. */
static uint64_t owed_for_ns(double share)
{
	return turn.credit_ns < 0 ? (uint64_t)(-turn.credit_ns / share) : 0;
}

static uint64_t end(uint64_t now_ns, double share, uint64_t least_ns)
{
	bool rests = now_ns - turn.last_change_ns > REST_MS * NS_PER_MS;
	uint64_t worth_ns = (uint64_t)(turn.wake_ns / (share / WAKE_SHARE + share / 2));
	uint64_t hot_ns = min_u64((uint64_t)(2 * hot_need_ns() / share), REST_TICK_MS * NS_PER_MS);
	uint64_t tick_ns = rests ? REST_TICK_MS * NS_PER_MS : max_u64(hot_ns, TICK_MS * NS_PER_MS);
	turn.tick_ns = max_u64(max_u64(least_ns, worth_ns), tick_ns);
	return now_ns + max_u64(turn.tick_ns, min_u64(owed_for_ns(share), NS_PER_S));
}

static void heat(uint64_t block, uint64_t now_ns)
{
	struct hot_block *hot = turn.hot;
	while (hot < turn.hot + turn.n_hot && hot->start != block)
		hot++;
	if (hot == turn.hot + turn.n_hot) {
		if (turn.n_hot == HOT_BLOCKS)
			return;
		turn.n_hot++;
		*hot = (struct hot_block){ .start = block, .keep_ns = HOT_FIRST_MS * NS_PER_MS };
	} else {
		hot->keep_ns = min_u64(hot->keep_ns * 2, HOT_MOST_MS * NS_PER_MS);
	}
	hot->until_ns = now_ns + hot->keep_ns;
}

static void changed(uint64_t start, uint64_t end, uint64_t now_ns)
{
	struct span run;
	unsigned n = 0;
	for (uint64_t at = start; n < HOT_BLOCKS && page_set_next(&pages, page_floor(at), end, &run);) {
		heat(block_of(run.start), now_ns);
		turn.last_change_ns = now_ns;
		at = block_of(run.start) + BLOCK_BYTES;
		n++;
	}
}

static uint64_t round_ns(double share)
{
	double wakes_share = turn.tick_ns ? turn.wake_ns / (double)turn.tick_ns - share / WAKE_SHARE : 0;
	double bytes_share = share - (wakes_share > 0 ? wakes_share : 0);
	uint64_t paid_ns =
		(uint64_t)((double)watched_bytes() * ns_per_byte(LOOK_ROUND) / bytes_share) * (turn.n_hot ? 2 : 1);
	uint64_t under_way_ns = turn.round_start_ns ? turn.last_look_ns - turn.round_start_ns : 0;
	uint64_t known_ns = max_u64(turn.last_round_ns, under_way_ns);
	return watched_bytes() ? owed_for_ns(share) + max_u64(max_u64(paid_ns, known_ns), turn.tick_ns) : 0;
}

static const struct turns in_turn = {
	.begin = begin,
	.take = take,
	.charge = charge,
	.end = end,
	.changed = changed,
	.round_ns = round_ns,
};

const struct backend fault_poll = {
	.name = "poll",
	.pages = &pages,
	.silent_reason = MEMWATCH_REASON_POLLING,
	.open = open_poll,
	.close = close_poll,
	.arm = arm,
	.disarm = disarm,
	.collect = collect,
	.turns = &in_turn,
	.fork_child = close_poll,
};
