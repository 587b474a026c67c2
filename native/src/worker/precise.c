/*
 * precise.c -- DESIGN: turns the hits of hardware watchpoints into events, in the order of their numbers. Runs on the
 * worker, in each pass, for the regions that have a watchpoint. The diff of pages leaves these out. All under the
 * engine's lock.
 *
 * The kernel counts every write. A write's hit comes with a trap, which may be late. Each look at a region finds one of
 * these:
 *
 *   state        what it means                                   what is done
 *   QUIET        no hit, and memory is as it was told            nothing
 *   IN_FLIGHT    a write is counted that is no hit yet           look again; past patience, tell what is certain
 *   ABANDONED    such a write, and no hit of any for long: its   count it as missed; when it comes after all, take
 *                thread blocks SIGTRAP                           that back
 *   TOLD         all writes before the look are told             look again: there may be more
 *   SETTLED      and memory holds the last value, or what no     nothing: the next look finds it quiet
 *                hit tells of was told, too
 *   UNREADABLE   the kernel refuses to read the memory           leave it to the next pass
 *   VANISHED     the memory is gone                              the region ends
 *
 * The value that a hit read may be another thread's: one that stored in between, and whose own trap is on its way. For
 * most stores code and registers prove whose it is (operand.c). For the others, that other thread's hit will find
 * nothing new. So a silent hit makes those of other threads shortly before it uncertain, and what is uncertain is
 * `page`, not `exact`.
 *
 * What is in memory and in no hit, while nothing is in flight, was written by the kernel or by a thread that blocks
 * SIGTRAP (the kernel's count tells), or its hit found the ring full (the numbers tell).
 *
 * Loss: a write without a hit is counted as merged into the region's next event. The change itself is found in memory.
 */
#define _GNU_SOURCE
#include "precise.h"

#include "emit.h"
#include "guard.h"
#include "../base/memory.h"

#include <sched.h>
#include <string.h>
#include <unistd.h>

#define RACE_NS (100 * NS_PER_MS) /* how long a trap may be on its way: its thread may have to wait for a processor */
#define PATIENCE_NS UINT64_C(200000) /* how long a pass waits for one */
#define FORCED_NS NS_PER_S           /* the same at most when somebody waits for the pass */
#define FLOOD_NS (5 * NS_PER_MS)     /* the same while hits go on coming */
#define HIT_COST_NS 12000            /* what a hit costs its writer, see docs/performance.md */

enum { LOOK_BACK = 256, UNMATCHED_LOOKS_MIN = 20, YIELDS = 10, NAP_US = 100, PENDING_MAX = 1 << 16 };

/* What a look at a region found: see above. */
enum precise_state {
	PRECISE_QUIET,
	PRECISE_IN_FLIGHT,
	PRECISE_ABANDONED,
	PRECISE_TOLD,
	PRECISE_SETTLED,
	PRECISE_UNREADABLE,
	PRECISE_VANISHED
};

/* A region that has a watchpoint. */
struct precise_slot {
	uint64_t region;  /* id, and above it its watcher; 0: free */
	uint32_t point;   /* the watchpoint's number */
	bool fresh;       /* notes may explain what it finds first */
	bool blocked;     /* writes were abandoned since it was last settled */
	bool due;         /* to be looked at again */
	struct hit *hits; /* not yet told, ordered by n; the worker's */
	size_t n_hits, capacity;
	uint64_t next;                     /* the n of the next hit to be told */
	uint64_t received;                 /* from the ring */
	uint64_t missed;                   /* writes that no event has told yet */
	uint64_t n_abandoned;              /* writes counted less hits, when nothing was in flight */
	uint64_t unmatched_least;          /* the same while it is more, */
	uint64_t unmatched_since_ns;       /* since when, 0: it is not, */
	unsigned n_unmatched_looks;        /* and how often it was seen so */
	uint64_t n_seen, n_seen_unmatched; /* hits at the last look, and when the first write was unmatched */
};

struct precise {
	_Atomic bool due; /* one of the slots is; set under the lock */
	struct precise_slot slots[POINTS];
	uint64_t n_hits, n_missed; /* shown in stats */
};

int precise_open(struct engine *engine)
{
	engine->precise = mem_alloc(sizeof *engine->precise);
	return engine->precise ? 0 : error_set(-ENOMEM, "no memory for the table of watchpoints");
}

void precise_close(struct engine *engine)
{
	for (unsigned i = 0; engine->precise && i < POINTS; i++)
		mem_free(engine->precise->slots[i].hits);
	mem_free(engine->precise);
	engine->precise = NULL;
}

static unsigned n_used(const struct engine *engine)
{
	unsigned n = 0;
	for (unsigned i = 0; i < POINTS; i++)
		n += engine->precise->slots[i].region != 0;
	return n;
}

void precise_stats(const struct engine *engine, struct memwatch_stats *stats)
{
	stats->watchpoints.available = POINTS;
	stats->watchpoints.used = n_used(engine);
	stats->watchpoints.hits = engine->precise->n_hits;
	stats->watchpoints.missed = engine->precise->n_missed;
}

/* --- taking hits from the ring --- */

static struct precise_slot *slot_of_point(struct precise *precise, uint32_t point)
{
	for (unsigned i = 0; i < POINTS; i++)
		if (precise->slots[i].region && precise->slots[i].point == point)
			return &precise->slots[i];
	return NULL;
}

/* A hit that finds no room leaves a gap in the numbers. */
static void take_hit(struct precise_slot *slot, const struct hit *hit)
{
	if (!hit->n) { /* late: memory and the counts tell the rest */
		slot->due = true;
		return;
	}
	slot->received++;
	if (hit->n < slot->next || slot->n_hits == PENDING_MAX ||
	    !mem_reserve(&slot->hits, &slot->capacity, slot->n_hits + 1, sizeof *slot->hits))
		return;
	size_t i = slot->n_hits++;
	for (; i && slot->hits[i - 1].n > hit->n; i--)
		slot->hits[i] = slot->hits[i - 1];
	slot->hits[i] = *hit;
}

void precise_drain(struct engine *engine)
{
	struct hit hit;
	while (engine->hits->pop(&hit)) {
		struct precise_slot *slot = slot_of_point(engine->precise, hit.point);
		if (slot)
			take_hit(slot, &hit);
		else
			guard_take(engine, &hit);
	}
}

bool precise_waiting(struct engine *engine)
{
	return atomic_load(&engine->precise->due) || engine->hits->waiting();
}

/* --- is a trap on its way? --- */

struct sample {
	struct hit_state state;
	uint64_t unmatched; /* writes that the kernel has counted and that are no hits */
};

/* The state first: a write in between then looks like one on its way. */
static struct sample sample_counts(struct engine *engine, const struct precise_slot *slot)
{
	struct sample sample;
	engine->hits->state(slot->point, &sample.state);
	sample.unmatched = engine->hits->counted(slot->point) - sample.state.n;
	return sample;
}

/* Writes that an event has told as missed have come after all. */
static void retract_missed(struct engine *engine, struct region *region, uint64_t n)
{
	struct memwatch *watcher = engine->watchers[region->watcher];
	n = region->meta ? min_u64(n, region->meta->coalesced) : 0;
	if (!n)
		return;
	region->detected -= n;
	region->meta->coalesced -= n;
	watcher->ledger.detected -= n;
	watcher->ledger.coalesced -= n;
}

/* All writes are hits but for those that were given up; of these some may have come. */
static void accept_balance(struct engine *engine, struct precise_slot *slot, struct region *region, uint64_t unmatched)
{
	uint64_t n_came = slot->n_abandoned - unmatched, n_untold = min_u64(n_came, slot->missed);
	slot->n_abandoned = unmatched;
	slot->missed -= n_untold;
	engine->precise->n_missed -= n_came;
	slot->unmatched_since_ns = 0;
	retract_missed(engine, region, n_came - n_untold);
}

/* Writes have had no hit for long: their threads block SIGTRAP. */
static void abandon_unmatched(struct engine *engine, struct precise_slot *slot)
{
	slot->missed += slot->unmatched_least - slot->n_abandoned;
	engine->precise->n_missed += slot->unmatched_least - slot->n_abandoned;
	slot->n_abandoned = slot->unmatched_least;
	slot->unmatched_since_ns = 0;
	slot->blocked = true;
}

/* Remembers how few writes have been unmatched while no hit came. */
static void watch_unmatched(struct precise_slot *slot, const struct sample *sample, uint64_t now_ns)
{
	if (!slot->unmatched_since_ns || slot->n_seen_unmatched != sample->state.n) {
		slot->n_seen_unmatched = sample->state.n;
		slot->unmatched_since_ns = now_ns;
		slot->unmatched_least = sample->unmatched;
		slot->n_unmatched_looks = 0;
	}
	slot->unmatched_least = min_u64(slot->unmatched_least, sample->unmatched);
	slot->n_unmatched_looks++;
}

/*
 * After a drain: TOLD when every write before the sample is told, received, lost or abandoned. A variable that is
 * written all the time has always a trap in flight. So writes are abandoned only when there are no hits at all for
 * long.
 */
static enum precise_state account(struct engine *engine, struct precise_slot *slot, struct region *region,
				  const struct sample *sample)
{
	uint64_t now_ns = time_monotonic_ns();
	if (slot->received + sample->state.n_lost < sample->state.n)
		return PRECISE_IN_FLIGHT;
	if (sample->unmatched <= slot->n_abandoned) {
		accept_balance(engine, slot, region, sample->unmatched);
		return PRECISE_TOLD;
	}
	watch_unmatched(slot, sample, now_ns);
	if (slot->n_unmatched_looks < UNMATCHED_LOOKS_MIN || now_ns - slot->unmatched_since_ns < RACE_NS)
		return PRECISE_IN_FLIGHT;
	abandon_unmatched(engine, slot);
	return PRECISE_ABANDONED;
}

/* --- telling --- */

/* The writes that the event to come stands for, besides its own; the ledger learns of them now. */
static uint64_t claim_missed(struct engine *engine, struct precise_slot *slot, struct region *region)
{
	struct memwatch *watcher = engine->watchers[region->watcher];
	uint64_t n = slot->missed;
	slot->missed = 0;
	if (!n || !region_meta(region))
		return 0;
	region->detected += n;
	region->meta->coalesced += n;
	watcher->ledger.detected += n;
	watcher->ledger.coalesced += n;
	return n;
}

/* The region has a value that no hit tells of. `author` NULL: ask the notes. */
static void emit_unexplained(struct engine *engine, struct precise_slot *slot, struct region *region, uint64_t value,
			     const struct author *author)
{
	struct author merged = author ? *author : (struct author){ .by_notes = true };
	if (slot->missed) /* this event is one of them */
		slot->missed--;
	merged.merged = claim_missed(engine, slot, region);
	emit_value(engine, region, &value, &merged);
	engine->pass.silent_change = true;
}

static enum memwatch_reason silent_reason(const struct precise_slot *slot, uint64_t n_lost)
{
	return slot->blocked ? MEMWATCH_REASON_BLOCKED : n_lost ? MEMWATCH_REASON_RING_FULL : MEMWATCH_REASON_KERNEL;
}

static void emit_hit(struct engine *engine, struct precise_slot *slot, struct region *region, const struct hit *hit)
{
	uint64_t n_lost = hit->n - slot->next;
	size_t size = region->size_bytes;
	slot->next = hit->n + 1;
	slot->missed += n_lost;
	engine->precise->n_missed += n_lost;
	engine->precise->n_hits++;
	if (memcmp(region->shadow, &hit->old_value, size) != 0)
		emit_unexplained(engine, slot, region, hit->old_value,
				 &(struct author){ .reason = silent_reason(slot, n_lost) });
	struct taken note = { .time_ns = atomic_load_explicit(&hit->time_ns, memory_order_relaxed),
			      .address = hit->address,
			      .ip = hit->ip,
			      .thread_id = hit->thread_id,
			      .location = hit->location,
			      .point = hit->point };
	bool certain = hit->proof == HIT_PROVEN || (!hit->uncertain && !slot->blocked);
	struct author author = { .note = &note,
				 .attribution = certain ? MEMWATCH_ATTRIBUTION_EXACT : MEMWATCH_ATTRIBUTION_PAGE };
	if (memcmp(region->shadow, &hit->new_value, size) != 0)
		author.merged = claim_missed(engine, slot, region);
	emit_value(engine, region, &hit->new_value, &author);
}

/*
 * A hit that is silent, or that may itself have read another's value, can be the trap of a store whose value an earlier
 * hit of another thread has read: of one since the last hit of its own thread.
 */
static void mark_uncertain_before(struct precise_slot *slot, size_t late)
{
	struct hit *hits = slot->hits;
	uint64_t end_ns = hits[late].time_ns;
	size_t last = late > LOOK_BACK ? late - LOOK_BACK : 0;
	if (hits[late].old_value != hits[late].new_value && !hits[late].uncertain)
		return;
	for (size_t i = late; i-- > last;) {
		if (hits[i].thread_id == hits[late].thread_id || hits[i].time_ns + RACE_NS < end_ns)
			return;
		hits[i].uncertain |= hits[i].proof != HIT_PROVEN;
	}
}

/* Tells the first `n` hits. */
static void emit_hits(struct engine *engine, struct precise_slot *slot, struct region *region, size_t n)
{
	if (!n)
		return;
	for (size_t i = slot->n_hits; i-- > 0;) {
		slot->hits[i].uncertain |= slot->hits[i].proof == HIT_DISPROVEN;
		mark_uncertain_before(slot, i);
	}
	for (size_t i = 0; i < n; i++)
		emit_hit(engine, slot, region, &slot->hits[i]);
	slot->n_hits -= n;
	memmove(slot->hits, slot->hits + n, slot->n_hits * sizeof *slot->hits);
}

/*
 * How many hits can be told while traps are on their way: those whose value is proven to be their own, with none
 * missing before them, and those that are too old for such a trap to have had a part in them.
 */
static size_t count_certain(const struct precise_slot *slot)
{
	uint64_t limit_ns = time_realtime_ns() - RACE_NS;
	size_t n = 0;
	while (n < slot->n_hits && (slot->hits[n].time_ns < limit_ns ||
				    (slot->hits[n].proof == HIT_PROVEN && slot->hits[n].n == slot->next + n)))
		n++;
	return n;
}

/* --- a region in a pass --- */

static bool is_shadow(const struct region *region, uint64_t value)
{
	return memcmp(&value, region->shadow, region->size_bytes) == 0;
}

/* Memory has `value`, nothing is on its way, and all hits are told. False when a hit came after all. */
static bool settle_memory(struct engine *engine, struct precise_slot *slot, struct region *region,
			  const struct sample *sample, uint64_t value, bool silenced)
{
	uint64_t n_lost = sample->state.n + 1 - slot->next;
	if (!is_shadow(region, value)) {
		if (!engine->hits->correct(slot->point, sample->state.n, value))
			return false;
		struct author author = { .reason = silenced ? MEMWATCH_REASON_TRACED : silent_reason(slot, n_lost) };
		slot->next += n_lost;
		slot->missed += n_lost;
		engine->precise->n_missed += n_lost;
		emit_unexplained(engine, slot, region, value,
				 slot->fresh && author.reason == MEMWATCH_REASON_KERNEL ? NULL : &author);
	}
	slot->fresh = slot->blocked = slot->due = false;
	return true;
}

static void end_region(struct engine *engine, struct region *region)
{
	precise_remove(engine, region);
	if (!(region->flags & REGION_LOST))
		emit_lost(engine, region);
}

/* One look. `force`: somebody waits, and what was abandoned may have come. */
static enum precise_state observe(struct engine *engine, struct precise_slot *slot, struct region *region, bool force,
				  bool silenced)
{
	uint64_t value = 0;
	int error = memory_copy(&value, region->start, region->size_bytes);
	if (error)
		return error == -EFAULT ? PRECISE_VANISHED : PRECISE_UNREADABLE;
	if (!slot->n_hits && !slot->due && !slot->fresh && !(force && slot->n_abandoned) && is_shadow(region, value))
		return PRECISE_QUIET;
	struct sample now = sample_counts(engine, slot);
	slot->n_seen = now.state.n;
	precise_drain(engine);
	size_t n_hits = slot->n_hits;
	enum precise_state state = account(engine, slot, region, &now);
	if (state == PRECISE_IN_FLIGHT)
		return state;
	emit_hits(engine, slot, region, n_hits);
	bool settled = !n_hits && settle_memory(engine, slot, region, &now, value, silenced);
	return settled ? PRECISE_SETTLED : PRECISE_TOLD;
}

/* Patience is over: what is certain is told, or all of it when somebody waits; the next pass looks again. */
static void leave_unsettled(struct engine *engine, struct precise_slot *slot, struct region *region, bool force)
{
	emit_hits(engine, slot, region, force ? slot->n_hits : count_certain(slot));
	slot->due = true;
	atomic_store(&engine->precise->due, true);
}

/*
 * Looks until a region is settled. When nobody waits, what is not settled soon is left to the next pass. When somebody
 * does, traps in flight are waited for, but not those that go on coming.
 */
static void observe_until_settled(struct engine *engine, struct precise_slot *slot, bool force, bool silenced)
{
	struct region *region = region_by_ticket(&engine->regions, slot->region);
	uint64_t end_ns = time_monotonic_ns() + (force ? FORCED_NS : PATIENCE_NS);
	uint64_t flood_end_ns = time_monotonic_ns() + FLOOD_NS, n_first = 0;
	bool was_told = false;
	for (int i = 0; i == 0 || time_monotonic_ns() < end_ns; i++) {
		enum precise_state state = observe(engine, slot, region, force, silenced);
		if (state == PRECISE_VANISHED)
			end_region(engine, region);
		if (state == PRECISE_QUIET || state == PRECISE_SETTLED || state == PRECISE_VANISHED)
			return;
		if (state == PRECISE_UNREADABLE)
			break;
		if (i == 0)
			n_first = slot->n_seen;
		else if (slot->n_seen != n_first)
			end_ns = min_u64(end_ns, flood_end_ns);
		if (state == PRECISE_TOLD && !was_told) { /* telling may have taken long */
			was_told = true;
			end_ns = time_monotonic_ns() + PATIENCE_NS;
		} else if (i < YIELDS) {
			sched_yield();
		} else {
			usleep(NAP_US);
		}
	}
	leave_unsettled(engine, slot, region, force);
}

/* --- coming and going --- */

static void slot_free(struct engine *engine, struct precise_slot *slot)
{
	engine->hits->remove(slot->point);
	*slot = (struct precise_slot){ .hits = slot->hits, .capacity = slot->capacity };
}

void precise_remove(struct engine *engine, struct region *region)
{
	if (!region->point || guard_holds(region))
		return;
	slot_free(engine, &engine->precise->slots[region->point - 1]);
	region->point = 0;
}

/* 1, 2, 4 or 8 bytes, aligned. */
static bool fits(const struct region *region)
{
	uint64_t n = region->size_bytes;
	return region->start && (n == 1 || n == 2 || n == 4 || n == 8) && !(region->start & (n - 1)) &&
	       !(region->flags & (MEMWATCH_REGION_HASHED | REGION_LOST));
}

int precise_add(struct engine *engine, struct region *region)
{
	struct precise_slot *slot = engine->precise->slots;
	uint64_t value = 0;
	if (!fits(region))
		return error_set(-EINVAL,
				 "`precise` needs 1, 2, 4 or 8 bytes at an address that is a multiple of the size, "
				 "with a full shadow; "
				 "\"%s\" has %llu at 0x%llx",
				 region_name(region), (unsigned long long)region->size_bytes,
				 (unsigned long long)region->start);
	guard_yield(engine);
	while (slot < &engine->precise->slots[POINTS - 1] && slot->region)
		slot++;
	memcpy(&value, region->shadow, region->size_bytes);
	uint32_t point;
	int error = engine->hits->add(region->start, (uint32_t)region->size_bytes, value, 0, &point);
	if (error)
		return error;
	*slot = (struct precise_slot){ .hits = slot->hits,
				       .capacity = slot->capacity,
				       .region = region_ticket(region),
				       .point = point,
				       .fresh = true,
				       .due = true,
				       .next = 1 };
	region->point = (uint8_t)(slot - engine->precise->slots + 1);
	atomic_store(&engine->precise->due, true);
	return 0;
}

void precise_pass(struct engine *engine, bool force)
{
	uint64_t now_ns = time_monotonic_ns();
	bool silenced = n_used(engine) && engine->hits->tick(now_ns);
	atomic_store(&engine->precise->due, false);
	for (unsigned i = 0; i < POINTS; i++) {
		struct precise_slot *slot = &engine->precise->slots[i];
		if (!slot->region)
			continue;
		observe_until_settled(engine, slot, force, silenced);
		engine_yield(engine);
	}
}
