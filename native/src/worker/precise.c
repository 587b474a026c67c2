/*
 * precise.c -- DESIGN: turns the hits of hardware watchpoints into events, in the order of their numbers. Runs on the worker, in each
 * pass, for the regions that have a watchpoint; the diff of pages leaves these out.
 *
 * The value that a hit read may be another thread's, who stored in between and whose own trap is still on its way. For most stores code
 * and registers prove whose it is (operand.c). For the others: that other one's hit then finds nothing new, so a silent hit
 * casts doubt on those of other threads shortly before it; and hits are told when the writes that the kernel counted and the
 * hits agree, which they do unless a trap is on its way. Doubtful hits are `page`, not `exact`.
 *
 * What is in memory and in no hit, while nothing is on its way, was written by the kernel, by a thread that blocks SIGTRAP
 * (the kernel's count tells), or its hit found the ring full (the numbers tell).
 *
 * Loss: a write without a hit is counted as merged into the region's next event; the change itself is found in memory.
 */
#define _GNU_SOURCE
#include "precise.h"

#include "emit.h"
#include "../base/memory.h"

#include <sched.h>
#include <string.h>
#include <unistd.h>

#define RACE_NS (100 * NS_PER_MS) /* how long a trap may be on its way: its thread may have to wait for a processor */
#define PATIENCE_NS UINT64_C(200000) /* how long a pass waits for one */
#define FORCED_NS NS_PER_S           /* the same at most when somebody waits for the pass */
#define FLOOD_NS (5 * NS_PER_MS)     /* the same while hits go on coming */
#define PERIOD_NS (100 * NS_PER_MS)  /* over which an automatic watchpoint's cost is measured */
#define LEASE_NS (10 * NS_PER_S)     /* how long a region keeps an automatic one; then it has to need it again */
#define HIT_COST_NS 12000            /* what a hit costs its writer, see docs/performance.md */

enum { LOOK_BACK = 256, ODD_MIN = 20, YIELDS = 10, NAP_US = 100, PENDING_MAX = 1 << 16 };

/* A region that has a watchpoint. */
struct precise_slot {
	uint64_t region;  /* id, and above it its watcher; 0: free */
	uint32_t point;   /* the watchpoint's number */
	bool automatic;   /* lent: it can be taken back */
	bool fresh;       /* notes may explain what it finds first */
	bool blocked;     /* writes by threads that block SIGTRAP were found */
	bool due;         /* to be looked at again */
	struct hit *hits; /* not yet told, ordered by n; the worker's */
	uint32_t n_hits, capacity;
	uint64_t next;                    /* the n of the next hit to be told */
	uint64_t received;                /* from the ring */
	uint64_t missed;                  /* writes that no event has told yet */
	uint64_t balance;                 /* writes counted less hits, when nothing was on its way */
	uint64_t odd_least, odd_since_ns; /* the same while it is more than the balance; since 0: it is not */
	unsigned n_odd;                   /* how often it was seen so */
	uint64_t n_seen, n_seen_odd;      /* hits at the last sample, and at those that were odd */
	uint64_t lease_end_ns;            /* an automatic one's */
	uint64_t period_start_ns, n_in_period;
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
	stats->watchpoints = POINTS;
	stats->watchpoints_used = n_used(engine);
	stats->watchpoint_hits = engine->precise->n_hits;
	stats->watchpoint_missed = engine->precise->n_missed;
}

/* --- taking hits from the ring --- */

static struct precise_slot *slot_of_point(struct precise *precise, uint32_t point)
{
	for (unsigned i = 0; i < POINTS; i++)
		if (precise->slots[i].region && precise->slots[i].point == point)
			return &precise->slots[i];
	return NULL;
}

static bool reserve(struct precise_slot *slot)
{
	if (slot->n_hits < slot->capacity)
		return true;
	if (slot->capacity == PENDING_MAX)
		return false;
	uint32_t capacity = slot->capacity ? slot->capacity * 2 : 64;
	struct hit *hits = mem_grow(slot->hits, capacity * sizeof *hits);
	if (!hits)
		return false;
	slot->hits = hits;
	slot->capacity = capacity;
	return true;
}

/* A hit that finds no room leaves a gap in the numbers. */
static void receive(struct precise_slot *slot, const struct hit *hit)
{
	if (!hit->n) { /* late: memory and the counts tell the rest */
		slot->due = true;
		return;
	}
	slot->received++;
	if (hit->n < slot->next || !reserve(slot))
		return;
	uint32_t i = slot->n_hits++;
	for (; i && slot->hits[i - 1].n > hit->n; i--)
		slot->hits[i] = slot->hits[i - 1];
	slot->hits[i] = *hit;
}

static void drain(struct engine *engine)
{
	struct hit hit;
	while (engine->hits->pop(&hit)) {
		struct precise_slot *slot = slot_of_point(engine->precise, hit.point);
		if (slot)
			receive(slot, &hit);
	}
}

unsigned precise_drain(struct engine *engine, uint64_t *ret_ips, unsigned n)
{
	unsigned found = 0;
	drain(engine);
	for (unsigned s = 0; s < POINTS; s++) {
		const struct precise_slot *slot = &engine->precise->slots[s];
		for (uint32_t i = 0; i < slot->n_hits && found < n; i++)
			if (!i || slot->hits[i].ip != slot->hits[i - 1].ip)
				ret_ips[found++] = slot->hits[i].ip - 1;
	}
	return found;
}

bool precise_waiting(struct engine *engine)
{
	return atomic_load(&engine->precise->due) || engine->hits->waiting();
}

/* --- is a trap on its way? --- */

struct sample {
	struct hit_state state;
	uint64_t odd; /* writes that the kernel has counted and that are no hits */
};

/* The state first: a write in between then looks like one on its way. */
static struct sample sample(struct engine *engine, const struct precise_slot *slot)
{
	struct sample sample;
	engine->hits->state(slot->point, &sample.state);
	sample.odd = engine->hits->counted(slot->point) - sample.state.n;
	return sample;
}

/* Writes that an event has told as missed have come after all. */
static void take_back(struct engine *engine, struct region *region, uint64_t n)
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
static void agree(struct engine *engine, struct precise_slot *slot, struct region *region, uint64_t odd)
{
	uint64_t n_came = slot->balance - odd, n_untold = min_u64(n_came, slot->missed);
	slot->balance = odd;
	slot->missed -= n_untold;
	engine->precise->n_missed -= n_came;
	slot->odd_since_ns = 0;
	take_back(engine, region, n_came - n_untold);
}

/* Writes have had no hit for long: their threads block SIGTRAP. */
static void give_up(struct engine *engine, struct precise_slot *slot)
{
	slot->missed += slot->odd_least - slot->balance;
	engine->precise->n_missed += slot->odd_least - slot->balance;
	slot->balance = slot->odd_least;
	slot->odd_since_ns = 0;
	slot->blocked = true;
}

/*
 * After a drain: is every write before the sample told, received, lost or given up? A variable that is written all the time has always
 * a trap on its way, so writes are given up only when there are no hits at all for long.
 */
static bool is_calm(struct engine *engine, struct precise_slot *slot, struct region *region,
		    const struct sample *sample)
{
	uint64_t now_ns = time_monotonic_ns();
	if (slot->received + sample->state.n_lost < sample->state.n)
		return false;
	if (sample->odd <= slot->balance) {
		agree(engine, slot, region, sample->odd);
		return true;
	}
	if (!slot->odd_since_ns || slot->n_seen_odd != sample->state.n) {
		slot->n_seen_odd = sample->state.n;
		slot->odd_since_ns = now_ns;
		slot->odd_least = sample->odd;
		slot->n_odd = 0;
	}
	slot->odd_least = min_u64(slot->odd_least, sample->odd);
	if (++slot->n_odd < ODD_MIN || now_ns - slot->odd_since_ns < RACE_NS)
		return false;
	give_up(engine, slot);
	return true;
}

/* --- telling --- */

/* The writes that the event to come stands for, besides its own; the ledger learns of them now. */
static uint64_t take_missed(struct engine *engine, struct precise_slot *slot, struct region *region)
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
static void tell_unexplained(struct engine *engine, struct precise_slot *slot, struct region *region, uint64_t value,
			     const struct author *author)
{
	struct author merged = author ? *author : (struct author){ .by_notes = true };
	if (slot->missed) /* this event is one of them */
		slot->missed--;
	merged.merged = take_missed(engine, slot, region);
	emit_value(engine, region, &value, &merged);
	engine->pass.silent_change = true;
}

static enum memwatch_reason reason_of(const struct precise_slot *slot, uint64_t n_lost)
{
	return slot->blocked ? MEMWATCH_REASON_BLOCKED : n_lost ? MEMWATCH_REASON_RING_FULL : MEMWATCH_REASON_KERNEL;
}

static void tell_hit(struct engine *engine, struct precise_slot *slot, struct region *region, const struct hit *hit)
{
	uint64_t n_lost = hit->n - slot->next;
	size_t size = region->size_bytes;
	slot->next = hit->n + 1;
	slot->missed += n_lost;
	slot->n_in_period++;
	engine->precise->n_missed += n_lost;
	engine->precise->n_hits++;
	if (memcmp(region->shadow, &hit->old_value, size) != 0)
		tell_unexplained(engine, slot, region, hit->old_value,
				 &(struct author){ .reason = reason_of(slot, n_lost) });
	struct taken note = { .time_ns = atomic_load_explicit(&hit->time_ns, memory_order_relaxed),
			      .address = hit->address,
			      .ip = hit->ip,
			      .thread_id = hit->thread_id,
			      .location = hit->location };
	bool certain = hit->proof == HIT_PROVEN || (!hit->uncertain && !slot->blocked);
	struct author author = { .note = &note,
				 .ip_is_after = true,
				 .attribution = certain ? MEMWATCH_ATTRIBUTION_EXACT : MEMWATCH_ATTRIBUTION_PAGE };
	if (memcmp(region->shadow, &hit->new_value, size) != 0)
		author.merged = take_missed(engine, slot, region);
	emit_value(engine, region, &hit->new_value, &author);
}

/*
 * A hit that is silent, or that may itself have read another's value, can be the trap of a store whose value an earlier hit of another
 * thread has read: of one since the last hit of its own thread.
 */
static void doubt(struct precise_slot *slot, uint32_t late)
{
	struct hit *hits = slot->hits;
	uint64_t end_ns = hits[late].time_ns;
	uint32_t last = late > LOOK_BACK ? late - LOOK_BACK : 0;
	if (hits[late].old_value != hits[late].new_value && !hits[late].uncertain)
		return;
	for (uint32_t i = late; i-- > last;) {
		if (hits[i].thread_id == hits[late].thread_id || hits[i].time_ns + RACE_NS < end_ns)
			return;
		hits[i].uncertain |= hits[i].proof != HIT_PROVEN;
	}
}

/* Tells the first `n` hits. */
static void tell(struct engine *engine, struct precise_slot *slot, struct region *region, uint32_t n)
{
	if (!n)
		return;
	for (uint32_t i = slot->n_hits; i-- > 0;) {
		slot->hits[i].uncertain |= slot->hits[i].proof == HIT_DISPROVEN;
		doubt(slot, i);
	}
	for (uint32_t i = 0; i < n; i++)
		tell_hit(engine, slot, region, &slot->hits[i]);
	slot->n_hits -= n;
	memmove(slot->hits, slot->hits + n, slot->n_hits * sizeof *slot->hits);
}

/*
 * How many hits can be told while traps are on their way: those whose value is proven to be their own, with none missing before them, and
 * those that are too old for such a trap to have had a part in them.
 */
static uint32_t n_ready(const struct precise_slot *slot)
{
	uint64_t limit_ns = time_realtime_ns() - RACE_NS;
	uint32_t n = 0;
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
static bool settle(struct engine *engine, struct precise_slot *slot, struct region *region, const struct sample *sample,
		   uint64_t value, bool silenced)
{
	uint64_t n_lost = sample->state.n + 1 - slot->next;
	if (!is_shadow(region, value)) {
		if (!engine->hits->correct(slot->point, sample->state.n, value))
			return false;
		struct author author = { .reason = silenced ? MEMWATCH_REASON_TRACED : reason_of(slot, n_lost) };
		slot->next += n_lost;
		slot->missed += n_lost;
		engine->precise->n_missed += n_lost;
		tell_unexplained(engine, slot, region, value,
				 slot->fresh && author.reason == MEMWATCH_REASON_KERNEL ? NULL : &author);
	}
	slot->fresh = slot->blocked = slot->due = false;
	return true;
}

static void vanished(struct engine *engine, struct region *region)
{
	precise_remove(engine, region);
	if (!(region->flags & REGION_LOST))
		emit_lost(engine, region);
}

/* One look: 1 when all is told, 0 when there may be more, -EAGAIN when a trap is on its way, -EFAULT without memory. */
static int look(struct engine *engine, struct precise_slot *slot, struct region *region, bool force, bool silenced)
{
	uint64_t value = 0;
	if (memory_copy(&value, region->start, region->size_bytes))
		return -EFAULT;
	if (!slot->n_hits && !slot->due && !slot->fresh && !(force && slot->balance) && is_shadow(region, value))
		return 1;
	struct sample now = sample(engine, slot);
	slot->n_seen = now.state.n;
	drain(engine);
	uint32_t n_hits = slot->n_hits;
	if (!is_calm(engine, slot, region, &now))
		return -EAGAIN;
	tell(engine, slot, region, n_hits);
	return !n_hits && settle(engine, slot, region, &now, value, silenced);
}

/*
 * Tells what has happened to a region. When nobody waits, what is not settled soon is left to the next pass. When somebody does, traps
 * that are on their way are waited for, but not those that go on coming.
 */
static void look_at(struct engine *engine, struct precise_slot *slot, bool force, bool silenced)
{
	struct region *region = region_by_ticket(&engine->regions, slot->region);
	uint64_t end_ns = time_monotonic_ns() + (force ? FORCED_NS : PATIENCE_NS);
	uint64_t flood_end_ns = time_monotonic_ns() + FLOOD_NS, n_first = 0;
	bool was_calm = false;
	for (int i = 0; i == 0 || time_monotonic_ns() < end_ns; i++) {
		int result = look(engine, slot, region, force, silenced);
		if (result == -EFAULT)
			vanished(engine, region);
		if (result == 1 || result == -EFAULT)
			return;
		if (i == 0)
			n_first = slot->n_seen;
		else if (slot->n_seen != n_first)
			end_ns = min_u64(end_ns, flood_end_ns);
		if (result == 0 && !was_calm) { /* telling may have taken long */
			was_calm = true;
			end_ns = time_monotonic_ns() + PATIENCE_NS;
		} else if (i < YIELDS) {
			sched_yield();
		} else {
			usleep(NAP_US);
		}
	}
	tell(engine, slot, region, force ? slot->n_hits : n_ready(slot));
	slot->due = true;
	atomic_store(&engine->precise->due, true);
}

/* --- coming and going --- */

static void slot_free(struct engine *engine, struct precise_slot *slot)
{
	engine->hits->remove(slot->point);
	*slot = (struct precise_slot){ .hits = slot->hits, .capacity = slot->capacity };
}

void precise_remove(struct engine *engine, struct region *region)
{
	if (!region->point)
		return;
	slot_free(engine, &engine->precise->slots[region->point - 1]);
	region->point = 0;
}

/* Takes an automatic watchpoint back. */
static void give_way(struct engine *engine)
{
	for (unsigned i = 0; i < POINTS && !engine->hits->n_free(); i++) {
		struct region *region = region_by_ticket(&engine->regions, engine->precise->slots[i].region);
		if (region && engine->precise->slots[i].automatic)
			precise_remove(engine, region);
	}
}

int precise_add(struct engine *engine, struct region *region, bool automatic)
{
	struct precise_slot *slot = engine->precise->slots;
	uint64_t value = 0, now_ns = time_monotonic_ns();
	if (!candidate_fits(region))
		return error_set(
			-EINVAL,
			"`precise` needs 1, 2, 4 or 8 bytes at an address that is a multiple of the size, with a full shadow; "
			"\"%s\" has %llu at 0x%llx",
			region_name(region), (unsigned long long)region->size_bytes, (unsigned long long)region->start);
	if (!automatic)
		give_way(engine);
	while (slot < &engine->precise->slots[POINTS - 1] && slot->region)
		slot++;
	memcpy(&value, region->shadow, region->size_bytes);
	uint32_t point;
	int error = engine->hits->add(region->start, (uint32_t)region->size_bytes, value, &point);
	if (error)
		return error;
	*slot = (struct precise_slot){ .hits = slot->hits,
				       .capacity = slot->capacity,
				       .region = region_ticket(region),
				       .point = point,
				       .automatic = automatic,
				       .fresh = true,
				       .due = true,
				       .next = 1,
				       .lease_end_ns = now_ns + LEASE_NS,
				       .period_start_ns = now_ns };
	region->point = (uint8_t)(slot - engine->precise->slots + 1);
	atomic_store(&engine->precise->due, true);
	return 0;
}

/* --- automatic ones --- */

static void promote(struct engine *engine)
{
	uint64_t ticket;
	while ((ticket = candidate_next(&engine->candidates))) {
		struct region *region = region_by_ticket(&engine->regions, ticket);
		if (region && !region->point && candidate_fits(region) && engine->hits->n_free() &&
		    precise_add(engine, region, true)) /* the machine has none */
			candidate_postpone(&engine->candidates, ticket, time_monotonic_ns() + LEASE_NS);
	}
}

/* An automatic watchpoint that costs more than the budget, or whose time is over, is given back. */
static void demote(struct engine *engine, struct precise_slot *slot, uint64_t now_ns)
{
	struct region *region = region_by_ticket(&engine->regions, slot->region);
	uint64_t took_ns = now_ns - slot->period_start_ns;
	bool dear = false;
	if (!region || !slot->automatic)
		return;
	if (took_ns >= PERIOD_NS) {
		dear = (double)(slot->n_in_period * HIT_COST_NS) > engine->budget * (double)took_ns;
		slot->period_start_ns = now_ns;
		slot->n_in_period = 0;
	}
	if (dear)
		candidate_postpone(&engine->candidates, slot->region, now_ns + LEASE_NS);
	if (dear || (now_ns >= slot->lease_end_ns && !slot->n_hits && !slot->due))
		precise_remove(engine, region);
}

void precise_pass(struct engine *engine, bool force)
{
	uint64_t now_ns = time_monotonic_ns();
	bool silenced = n_used(engine) && engine->hits->tick(now_ns);
	atomic_store(&engine->precise->due, false);
	promote(engine);
	for (unsigned i = 0; i < POINTS; i++) {
		struct precise_slot *slot = &engine->precise->slots[i];
		if (!slot->region)
			continue;
		look_at(engine, slot, force, silenced);
		demote(engine, slot, now_ns);
		engine_yield(engine);
	}
}
