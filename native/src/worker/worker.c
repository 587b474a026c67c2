/*
 * worker.c -- DESIGN: one thread, without any interpreter's lock. A note begins a window; when the window is over, a
 * partial pass collects the pages that have notes. A full pass (the sweep) collects all armed pages and finds what
 * sends no note: system calls, throttled or unattributed writers. It comes at an interval that is the window while such
 * changes happen and doubles up to SWEEP_MAX_MS while they do not, up to SWEEP_REST_MS when nothing at all has changed
 * for a while. A flush is a full pass at once.
 *
 * A pass: drain the notes, collect (which re-arms), drain again, then diff every region that holds a written page.
 * Notes taken while it collects may belong to either window: they explain changes of this one, and are kept for the
 * next as a hint.
 *
 * Cost is bounded: windows get wider when many pages are hot, passes keep a distance that is a multiple of what they
 * took. The thread takes its share of the CPUs, but preempts nobody: a pass in the middle of a writer's burst would
 * lengthen it by that.
 *
 * Loss: without memory for the list of touched regions, pages stay in the `written` list and are looked at in the next
 * pass.
 */
#define _GNU_SOURCE
#include "worker.h"

#include "emit.h"
#include "guard.h"
#include "held.h"
#include "precise.h"
#include "proof.h"
#include "resolver.h"
#include "vanish.h"
#include "../base/stack.h"

#include <memwatch/reader.h>

#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PROOF_NS 100000                  /* how long a pass waits for the stores of its notes, */
#define FORCED_PROOF_NS (2 * NS_PER_MS)  /* one that somebody waits for, */
#define WINDOW_PROOF_NS (50 * NS_PER_MS) /* and a window before its pass begins */

#define RETRY_NS (NS_PER_MS / 4)

enum {
	WINDOW_MAX_MS = 100,         /* how wide hot pages may make a window */
	SWEEP_SHARE = 500,           /* a sweep's distance is at least this multiple of the CPU time it took */
	GAP_BYTES = 32 * PAGE_BYTES, /* pages without notes that are collected along */
	PASS_SHARE = 4,              /* the same for passes that notes ask for */
	ANNOUNCE_EVERY = 256,        /* regions of a pass */
	FAULT_COST_NS = 5000         /* what a first write with its signal costs the writer, see docs/performance.md */
};

struct plan {
	uint64_t sweep_ns;      /* the sweep's interval */
	uint64_t next_sweep_ns; /* CLOCK_MONOTONIC, as all here */
	uint64_t busy_ns;       /* when something was last written */
	uint64_t first_note_ns; /* of the window that is open, 0: none */
	uint64_t window_ns;     /* how wide it is */
	uint64_t earliest_ns;   /* the next partial pass not before */
	uint64_t retry_ns;      /* nor before that, since a store of the window had not run */
	uint64_t due_ns;        /* when an event that max_rate holds back may go, 0: none */
	uint64_t tick_ns;       /* when the source wants to be asked again, 0: no wish */
	uint64_t next_poll_ns;  /* when polled memory is looked at, 0: there is none */
	uint64_t spent_ns;      /* the thread's CPU time by now, where there are no looks by the end of the last pass */
};

/* --- collecting --- */

/*
 * Pages that were open for a step within the span. After the backends: one that they found closed has its mark by then.
 * The mark goes before the page is read: what is read is not older than it.
 */
static void collect_unseen(struct engine *engine, struct span span)
{
	struct page_set *unseen = engine->source ? engine->source->unseen : NULL;
	struct span run;
	for (uint64_t at = span.start; unseen && page_set_next(unseen, at, span.end, &run); at = run.end) {
		if (span_list_add(&engine->pass.written, run.start, run.end))
			return;
		page_set_remove(unseen, run);
		if (engine->source->closing())
			page_set_add(unseen, run);
		span_list_add(&engine->pass.unseen, run.start, run.end);
	}
}

/* `polled`: that of the span, too, which is looked at in turn otherwise. */
static void collect_span(struct engine *engine, struct span span, bool polled)
{
	for (unsigned b = 0; b < engine->n_backends; b++) {
		const struct backend *backend = engine->backends[b];
		struct span run;
		if (backend->turns && !polled)
			continue;
		for (uint64_t at = span.start; page_set_next(backend->pages, at, span.end, &run); at = run.end)
			backend->collect(run, backend->turns ? &engine->pass.polled : &engine->pass.written);
	}
	collect_unseen(engine, span);
}

/*
 * Pages with notes, and what lies in small gaps between them: to look at a page costs a few ns, a system call hundreds,
 * and arming again interrupts every CPU that runs a thread of the process.
 */
static void collect_noted(struct engine *engine)
{
	struct span_list *noted = &engine->pass.noted;
	uint64_t last = UINT64_MAX;
	noted->n = 0;
	for (uint32_t i = 0; i < engine->who.n; i++) {
		uint64_t page = page_floor(engine->who.notes[i].address);
		if (page != last && span_list_add(noted, page, page + PAGE_BYTES))
			collect_span(engine, (struct span){ page, page + PAGE_BYTES }, false);
		last = page;
	}
	span_list_sort(noted);
	for (size_t i = 0; i < noted->n;) {
		struct span run = noted->spans[i++];
		while (i < noted->n && noted->spans[i].start - run.end <= GAP_BYTES)
			run.end = noted->spans[i++].end;
		collect_span(engine, run, false);
	}
}

/* Is some of the polled memory that has its turn armed, too? Then it is shared with others, see watch.c. */
static bool looks_are_armed(const struct engine *engine)
{
	struct span run;
	for (unsigned b = 0; b < engine->n_backends; b++)
		for (size_t i = 0; !engine->backends[b]->turns && i < engine->pass.polled.n; i++)
			if (page_set_next(engine->backends[b]->pages, engine->pass.polled.spans[i].start,
					  engine->pass.polled.spans[i].end, &run))
				return true;
	return false;
}

/* What of it we have written ourselves. */
static void collect_looks(struct engine *engine)
{
	for (size_t i = 0; i < engine->pass.polled.n; i++)
		collect_span(engine, engine->pass.polled.spans[i], false);
}

/* --- touched regions --- */

static void touch(struct region *region, void *arg)
{
	struct engine *engine = arg;
	if (region->flags & REGION_PENDING)
		return;
	if (region_list_add(&engine->pass.touched, region))
		region->flags |= REGION_PENDING;
	else
		engine->pass.touch_failed = true;
}

static void touch_written(struct region *region, void *arg)
{
	touch(region, arg);
	region->flags |= REGION_WRITTEN;
}

static void touch_spans(struct engine *engine)
{
	uint64_t n_pages = 0;
	span_list_sort(&engine->pass.written);
	span_list_sort(&engine->pass.polled);
	span_list_sort(&engine->pass.unseen);
	for (size_t i = 0; i < engine->pass.written.n; i++) {
		const struct span *span = &engine->pass.written.spans[i];
		n_pages += (span->end - span->start) / PAGE_BYTES;
		region_overlapping(&engine->regions, span->start, span->end, touch_written, engine);
	}
	for (size_t i = 0; i < engine->pass.polled.n; i++)
		region_overlapping(&engine->regions, engine->pass.polled.spans[i].start,
				   engine->pass.polled.spans[i].end, touch, engine);
	atomic_fetch_add(&engine->n_pages_written, n_pages);
}

/* Tells the sinks of what a pass has appended; not for each event, since each wake-up costs more than an event. */
static void announce(struct engine *engine)
{
	for (unsigned i = 0, n = 0; i < WATCHERS_MAX && n < engine->n_watchers; i++) {
		if (!engine->watchers[i])
			continue;
		resolver_announce(engine->resolver, engine->watchers[i]->log);
		n++;
	}
}

/* Of regions that are only polled: those that hold what they held are done. */
static void skip_equal(struct engine *engine)
{
	struct region *small[GATHER_PIECES];
	size_t n = 0;
	for (size_t i = 0; i < engine->pass.touched.n; i++) {
		struct region *region = region_by_ticket(&engine->regions, engine->pass.touched.tickets[i]);
		if (region && (region->flags & (REGION_PENDING | REGION_WRITTEN | REGION_LOST)) == REGION_PENDING &&
		    !region->point && gather_is_small(region))
			small[n++] = region;
		if (n < GATHER_PIECES && i + 1 < engine->pass.touched.n)
			continue;
		uint64_t equal = n > 1 ? gather_equal(&engine->gather, small, n) : 0;
		for (; equal; equal &= equal - 1)
			small[__builtin_ctzll(equal)]->flags &= (uint8_t)~REGION_PENDING;
		n = 0;
	}
	engine->pass.n_read = ring_head(&engine->ring);
}

static void emit_touched(struct engine *engine)
{
	for (size_t i = 0; i < engine->pass.touched.n; i++) {
		struct region *region = region_by_ticket(&engine->regions, engine->pass.touched.tickets[i]);
		if (region && region->flags & REGION_PENDING && !(region->flags & REGION_LOST))
			emit_region(engine, region);
		if (i % ANNOUNCE_EVERY == ANNOUNCE_EVERY - 1)
			announce(engine);
		engine_yield(engine);
	}
	engine->pass.touched.n = 0;
}

/*
 * A page that was opened after it was armed and before it was read has shown its opener's write already: who opens it
 * is not the author of what is found next.
 */
static void note_early(struct engine *engine)
{
	const struct span_list *written = &engine->pass.written;
	struct span_list *peeked = &engine->pass.peeked;
	peeked->n = 0;
	for (size_t i = 0; i < written->n; i++) {
		const struct backend *backend = engine_backend_of(engine, written->spans[i].start);
		page_set_remove(engine->early, written->spans[i]);
		if (backend && backend->peek)
			backend->peek(written->spans[i], peeked);
	}
	for (size_t i = 0; i < peeked->n; i++)
		page_set_add(engine->early, peeked->spans[i]);
}

static void read_done(struct engine *engine)
{
	note_early(engine);
	who_told(&engine->who, &engine->ring, &engine->pass.written, &engine->pass.polled, engine->pass.n_read);
	if (!engine->pass.touch_failed)
		engine->pass.written.n = engine->pass.polled.n = 0;
	engine->pass.touch_failed = false;
}

/* --- passes --- */

struct request {
	uint64_t ticket;
	bool flush, stop;
};

static struct request take_requests(struct engine *engine)
{
	pthread_mutex_lock(&engine->request_lock);
	struct request request = { .ticket = engine->asked,
				   .flush = engine->asked != engine->answered,
				   .stop = engine->stopping };
	pthread_mutex_unlock(&engine->request_lock);
	return request;
}

static void answer(struct engine *engine, uint64_t ticket)
{
	pthread_mutex_lock(&engine->request_lock);
	engine->answered = ticket;
	pthread_cond_broadcast(&engine->pass_done);
	pthread_mutex_unlock(&engine->request_lock);
}

static void begin_full(struct engine *engine)
{
	engine->pass.last_full_ns = engine->pass.this_full_ns;
	engine->pass.this_full_ns = time_monotonic_ns();
	engine->pass.dropped_before = engine->pass.dropped_now;
	engine->pass.dropped_now = atomic_load(&engine->ring.dropped);
	if (engine->source)
		engine->source->mark();
	for (unsigned b = 0; b < engine->n_backends; b++)
		if (engine->backends[b]->collect_opened)
			engine->backends[b]->collect_opened(&engine->pass.written);
}

/* Which of the window's stores have run. Others may have the lock meanwhile. */
static void prove_notes(struct engine *engine, uint64_t patience_ns)
{
	pthread_mutex_unlock(&engine->lock);
	proof_take(&engine->who, &engine->ring, patience_ns);
	pthread_mutex_lock(&engine->lock);
}

/* Under both locks. `forced`: somebody waits for it. */
static void pass(struct engine *engine, bool full, bool forced, struct span asked)
{
	engine->pass.silent_change = false;
	engine->pass.unseen.n = 0;
	memset(engine->pass.names, 0, sizeof engine->pass.names);
	engine->who.resolver_id = resolver_thread(engine->resolver);
	who_begin(&engine->who, &engine->ring);
	engine->pass.start_ns = time_realtime_ns();
	if (full) {
		begin_full(engine);
		collect_span(engine, (struct span){ 0, ADDRESS_END }, forced);
	} else {
		collect_noted(engine);
		collect_looks(engine);
		collect_span(engine, asked, true);
	}
	who_drain(&engine->who, &engine->ring);
	who_close_window(&engine->who);
	precise_drain(engine);
	prove_notes(engine, forced ? FORCED_PROOF_NS : PROOF_NS);
	who_index(&engine->who);
	precise_pass(engine, forced);
	guard_pass(engine);
	touch_spans(engine);
	emit_touched(engine);
	read_done(engine);
	if (full)
		vanish_check(engine);
	who_keep(&engine->who, engine->pass.start_ns);
	stack_forget(engine->pass.start_ns);
	atomic_fetch_add(&engine->n_passes, 1);
}

static bool has_polled(const struct engine *engine)
{
	return engine->n_backends && atomic_load(&engine->fallback->pages->n_pages);
}

static void compare_polled(struct engine *engine)
{
	if (looks_are_armed(engine)) {
		pass(engine, false, false, (struct span){ 0 });
		return;
	}
	memset(engine->pass.names, 0, sizeof engine->pass.names);
	who_index(&engine->who);
	touch_spans(engine);
	skip_equal(engine);
	emit_touched(engine);
	read_done(engine);
	atomic_fetch_add(&engine->n_passes, 1);
}

/* Looks at what was taken. Returns what that cost; `cpu_ns`, the thread's CPU time, goes on by it. */
static struct look_cost compare_at_cost(struct engine *engine, uint64_t *cpu_ns)
{
	uint64_t before_ns = *cpu_ns;
	engine->pass.tell_ns = 0;
	compare_polled(engine);
	*cpu_ns = time_cpu_ns();
	struct look_cost cost = { .tell_ns = engine->pass.tell_ns };
	cost.compare_ns = *cpu_ns - before_ns - cost.tell_ns;
	if (cost.tell_ns) {
		announce(engine);
		uint64_t told_ns = time_cpu_ns();
		cost.tell_ns += told_ns - *cpu_ns;
		*cpu_ns = told_ns;
	}
	return cost;
}

/* --- when --- */

/* After a pass with `n_notes` notes that took `took_ns`: how wide the next window is. */
static void plan_window(struct engine *engine, struct plan *plan, uint64_t n_notes, uint64_t took_ns, uint64_t now_ns)
{
	uint64_t share = engine->budget > 0.001 ? (uint64_t)(1 / engine->budget) : 100;
	uint64_t width_ns = min_u64(n_notes * FAULT_COST_NS * max_u64(share, 1), WINDOW_MAX_MS * NS_PER_MS);
	plan->window_ns = max_u64(engine->window_ns, width_ns);
	plan->earliest_ns = now_ns + PASS_SHARE * took_ns;
	plan->first_note_ns = engine->who.n ? now_ns : 0;
}

static void plan_sweep(struct engine *engine, struct plan *plan, uint64_t took_ns, uint64_t now_ns)
{
	uint64_t least_ns = max_u64(engine->window_ns, took_ns * (engine->pass.silent_change ? PASS_SHARE : 0));
	bool rests = !engine->pass.silent_change && now_ns - plan->busy_ns > SWEEP_REST_AFTER_MS * NS_PER_MS;
	uint64_t longest_ns = (rests ? SWEEP_REST_MS : SWEEP_MAX_MS) * NS_PER_MS;
	uint64_t most_ns = max_u64(max_u64(longest_ns, engine->window_ns), took_ns * SWEEP_SHARE);
	plan->sweep_ns = engine->pass.silent_change ? least_ns : min_u64(plan->sweep_ns * 2, most_ns);
	plan->next_sweep_ns = now_ns + plan->sweep_ns;
	atomic_store(&engine->sweep_ns, plan->sweep_ns);
}

/* Something was written: a long rest is over, for system calls, too. */
static void end_rest(struct engine *engine, struct plan *plan, uint64_t now_ns)
{
	uint64_t most_ns = max_u64(SWEEP_MAX_MS * NS_PER_MS, engine->window_ns);
	plan->busy_ns = now_ns;
	if (plan->sweep_ns <= most_ns)
		return;
	plan->sweep_ns = most_ns;
	plan->next_sweep_ns = min_u64(plan->next_sweep_ns, now_ns + most_ns);
}

static uint64_t earlier(uint64_t a_ns, uint64_t b_ns)
{
	return !a_ns ? b_ns : !b_ns ? a_ns : min_u64(a_ns, b_ns);
}

/* When the window that is open ends; 0: none is. */
static uint64_t window_end(const struct plan *plan)
{
	return plan->first_note_ns ? max_u64(plan->first_note_ns + plan->window_ns, plan->earliest_ns) : 0;
}

static bool asked_for(struct engine *engine)
{
	pthread_mutex_lock(&engine->request_lock);
	bool asked = engine->asked != engine->answered || engine->stopping;
	pthread_mutex_unlock(&engine->request_lock);
	return asked;
}

/* Sleeps until there is something to do. */
static void rest(struct engine *engine, struct plan *plan)
{
	uint32_t wake = atomic_load(&engine->ring.wake);
	uint64_t deadline_ns = earlier(max_u64(earlier(window_end(plan), plan->next_sweep_ns), plan->retry_ns),
				       earlier(plan->tick_ns, plan->due_ns));
	deadline_ns = earlier(deadline_ns, plan->next_poll_ns);
	if (asked_for(engine))
		return;
	if (plan->first_note_ns) { /* notes go on coming: no wake-up for each, but keep the ring from filling */
		deadline_ns = min_u64(deadline_ns, time_monotonic_ns() + WRITABLE_WINDOW_MS * NS_PER_MS);
		futex_wait(&engine->ring.wake, wake, deadline_ns);
	} else if (ring_sleep(&engine->ring)) {
		if (!precise_waiting(engine))
			futex_wait(&engine->ring.wake, wake, deadline_ns);
		atomic_store(&engine->ring.asleep, 0);
	}
}

static void look(struct engine *engine, struct plan *plan)
{
	who_drain(&engine->who, &engine->ring);
	precise_drain(engine);
	uint64_t now_ns = time_monotonic_ns();
	if ((engine->who.n || precise_waiting(engine)) && !plan->first_note_ns)
		plan->first_note_ns = now_ns;
	plan->tick_ns = engine->source ? engine->source->tick(now_ns) : 0;
	for (unsigned b = 0; b < engine->n_backends; b++)
		if (engine->backends[b]->tick)
			plan->tick_ns = earlier(plan->tick_ns, engine->backends[b]->tick(now_ns));
	if (!plan->next_poll_ns && has_polled(engine))
		plan->next_poll_ns = now_ns;
	plan->due_ns = held_due(engine, false);
	announce(engine);
}

/* Have the stores of the window's notes run? It stays open a little longer for those that have not. */
static bool window_is_settled(struct engine *engine, struct plan *plan, uint64_t now_ns)
{
	pthread_mutex_lock(&engine->pass_lock);
	who_drain(&engine->who, &engine->ring);
	who_close_window(&engine->who);
	bool settled = proof_take(&engine->who, &engine->ring, 0);
	pthread_mutex_unlock(&engine->pass_lock);
	if (settled || now_ns >= window_end(plan) + WINDOW_PROOF_NS)
		return true;
	plan->retry_ns = now_ns + RETRY_NS;
	return false;
}

/* Under both locks: looks at what of the polled memory has its turn. */
static void poll_in_turn(struct engine *engine, struct plan *plan)
{
	const struct turns *turns = engine->fallback->turns;
	uint64_t cpu_ns = time_cpu_ns(), now_ns = time_monotonic_ns();
	plan->next_poll_ns = 0;
	if (has_polled(engine) && turns->begin(now_ns, engine->poll_budget, cpu_ns - plan->spent_ns)) {
		for (enum look_part part = 0; part < LOOK_PARTS; part++) {
			turns->take(part, now_ns, &engine->pass.polled);
			if (engine->pass.polled.n)
				turns->charge(part, compare_at_cost(engine, &cpu_ns));
		}
		plan->next_poll_ns = turns->end(time_monotonic_ns(), engine->poll_budget, engine->window_ns);
	}
	plan->spent_ns = cpu_ns;
}

/* Does what is due; false when the engine stops. */
static bool work(struct engine *engine, struct plan *plan)
{
	struct request request = take_requests(engine);
	uint64_t start_ns = time_monotonic_ns();
	bool sweep = start_ns >= plan->next_sweep_ns;
	bool window = plan->first_note_ns && start_ns >= max_u64(window_end(plan), plan->retry_ns);
	if (!request.flush && (window || (sweep && plan->first_note_ns)) && !window_is_settled(engine, plan, start_ns))
		window = sweep = false;
	bool passes = request.flush || sweep || window;
	if (passes) {
		pthread_mutex_lock(&engine->pass_lock);
		pthread_mutex_lock(&engine->lock);
		uint64_t n_notes = engine->who.n, n_written = atomic_load(&engine->n_pages_written);
		pass(engine, request.flush || sweep, request.flush, (struct span){ 0 });
		plan->due_ns = held_due(engine, request.flush);
		announce(engine);
		uint64_t now_ns = time_monotonic_ns(), spent_ns = time_cpu_ns(), took_ns = spent_ns - plan->spent_ns;
		plan->spent_ns = spent_ns;
		plan_window(engine, plan, n_notes, took_ns, now_ns);
		if (window || atomic_load(&engine->n_pages_written) != n_written)
			end_rest(engine, plan, now_ns);
		if (sweep || engine->pass.silent_change)
			plan_sweep(engine, plan, took_ns, now_ns);
		pthread_mutex_unlock(&engine->lock);
		pthread_mutex_unlock(&engine->pass_lock);
		answer(engine, request.ticket);
	}
	if (plan->next_poll_ns && start_ns >= plan->next_poll_ns) {
		pthread_mutex_lock(&engine->pass_lock);
		pthread_mutex_lock(&engine->lock);
		poll_in_turn(engine, plan);
		plan->due_ns = held_due(engine, false);
		pthread_mutex_unlock(&engine->lock);
		pthread_mutex_unlock(&engine->pass_lock);
	} else if (plan->next_poll_ns) {
		plan->spent_ns = time_cpu_ns();
	}
	return !request.stop;
}

static void *run(void *arg)
{
	struct engine *engine = arg;
	engine_thread_begin();
	uint64_t now_ns = time_monotonic_ns();
	struct plan plan = { .sweep_ns = engine->window_ns,
			     .window_ns = engine->window_ns,
			     .next_sweep_ns = now_ns + engine->window_ns,
			     .busy_ns = now_ns };
	pthread_mutex_lock(&engine->pass_lock);
	engine->who.own_thread_id = gettid();
	memwatch_thread_own();
	pthread_mutex_unlock(&engine->pass_lock);
	do {
		rest(engine, &plan);
		pthread_mutex_lock(&engine->pass_lock);
		pthread_mutex_lock(&engine->lock);
		look(engine, &plan);
		pthread_mutex_unlock(&engine->lock);
		pthread_mutex_unlock(&engine->pass_lock);
	} while (work(engine, &plan));
	return NULL;
}

void worker_pass(struct engine *engine, struct span span)
{
	pthread_mutex_lock(&engine->pass_lock);
	engine_lock(engine);
	pass(engine, false, true, span);
	announce(engine);
	engine_unlock(engine);
	pthread_mutex_unlock(&engine->pass_lock);
}

int worker_flush(struct engine *engine, uint64_t deadline_ns)
{
	struct timespec deadline = { (time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S) };
	int error = 0;
	pthread_mutex_lock(&engine->request_lock);
	uint64_t ticket = ++engine->asked;
	ring_kick(&engine->ring);
	while (!error && engine->answered < ticket)
		error = -pthread_cond_timedwait(&engine->pass_done, &engine->request_lock, &deadline);
	pthread_mutex_unlock(&engine->request_lock);
	return error;
}

int worker_start(struct engine *engine)
{
	engine->stopping = false;
	return thread_start(&engine->thread, "memwatch", run, engine);
}

pid_t worker_stop(struct engine *engine)
{
	pthread_mutex_lock(&engine->request_lock);
	engine->stopping = true;
	pthread_mutex_unlock(&engine->request_lock);
	ring_kick(&engine->ring);
	pthread_join(engine->thread, NULL);
	return engine->who.own_thread_id;
}
