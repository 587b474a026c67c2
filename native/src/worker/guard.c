/*
 * guard.c -- DESIGN: a region of some bytes on a heap page loses its authors to whoever writes beside it: the page is
 * open then. A hardware watchpoint sees the region's writes alone. So while any are free, a region of up to 32 bytes
 * has each of its words covered by one, from the moment it is watched. One that is hot is silenced for the rest of a
 * period, by the handler at once, and gives its own back when it stays so. One that is idle gives way to a region that
 * needs it more, and all of them to `precise`.
 *
 * Of a larger region the words that changed last, when nobody was known for it, are covered: what changed is likely to
 * change again. The first free watchpoints are not for these.
 *
 * A hit names an author only where values prove it: the hits of a word, each with the value before and after it, must
 * lead from the old value of the event to the new one. A hit that comes late, after its store was told, leads nowhere;
 * what the kernel wrote in between breaks the way. What is left then is what the page's notes know.
 *
 * Loss: a hit, and with it an author, never a change.
 */
#include "guard.h"

#include <string.h>

#define LEASE_NS (10 * NS_PER_S)    /* how long a region keeps its guard whoever else wants it, unless it is idle */
#define IDLE_NS NS_PER_S            /* since its last hit */
#define MEMORY_NS (60 * NS_PER_S)   /* how long suggestions count */
#define PERIOD_NS (100 * NS_PER_MS) /* over which hits are counted, see hits.h */
#define HOT_NS (400 * NS_PER_MS)    /* one that goes on is hot when it was exhausted not longer before */
#define MOVE_NS (100 * NS_PER_MS)   /* between two choices of a larger region's words */
#define HIT_COST_NS 12000           /* what a hit costs its writer, see docs/performance.md */

enum {
	GUARD_BYTES = POINTS * POINT_BYTES,
	GUARD_CANDIDATES = 16,
	SPOTS = 2,       /* of a larger region so many words are covered */
	WANTED_MUCH = 3, /* suggestions for which another's guard is taken */
	HOT_MAX = 10     /* a guard that is hot for so long is given back */
};

/* One watchpoint of a guard: 1, 2, 4 or 8 aligned bytes, some of which are the region's. */
struct guard_cover {
	uint64_t address, mask; /* mask: the bits of its value that are the region's */
	uint32_t size_bytes, point;
	uint64_t value, n; /* of the last hit taken, or what was there before one */
	uint64_t hit_ns;   /* CLOCK_REALTIME: when that was */
};

struct guard {
	uint64_t region; /* a ticket; 0: free */
	bool is_partial; /* of a larger region, some words */
	unsigned n_covers;
	struct guard_cover covers[POINTS];
	uint64_t lease_end_ns, used_ns; /* CLOCK_MONOTONIC; when it was last hit */
	uint64_t resumed_ns;            /* when it went on after it had been exhausted */
	unsigned n_hot;                 /* how often that was so in a row */
};

/* A region whose events had no exact author. */
struct guard_candidate {
	uint64_t region;        /* a ticket; 0: free */
	uint64_t since_ns;      /* of the first suggestion that counts */
	uint64_t not_before_ns; /* it takes part again from then on */
	unsigned n;             /* suggestions since */
	/* Of a larger region: the words that changed last without an author, aligned, the newest first; 0: none. */
	uint64_t spots[SPOTS];
};

struct guards {
	struct guard slots[POINTS];
	struct guard_candidate candidates[GUARD_CANDIDATES];
	uint64_t n_hits; /* shown in stats */
};

int guard_open(struct engine *engine)
{
	engine->guards = mem_alloc(sizeof *engine->guards);
	return engine->guards ? 0 : error_set(-ENOMEM, "no memory for the table of lent watchpoints");
}

void guard_close(struct engine *engine)
{
	mem_free(engine->guards);
	engine->guards = NULL;
}

static struct guard *guard_of(struct engine *engine, const struct region *region)
{
	return &engine->guards->slots[region->point - POINTS - 1];
}

/* How many hits a region may have in a period. */
static uint32_t hits_max(const struct engine *engine)
{
	double share = engine->budget < 1 ? engine->budget : 1;
	return (uint32_t)(share * (double)PERIOD_NS / HIT_COST_NS);
}

/* --- which words --- */

/* The smallest aligned 1, 2, 4 or 8 bytes that hold [from, to), which lie within 8 aligned ones. */
static struct guard_cover cover_of(uint64_t from, uint64_t to)
{
	uint32_t size = 1;
	while ((from & ~(uint64_t)(size - 1)) + size < to)
		size *= 2;
	uint64_t address = from & ~(uint64_t)(size - 1), bits = (to - from) * 8;
	uint64_t mask = (bits < 64 ? (UINT64_C(1) << bits) - 1 : ~UINT64_C(0)) << (from - address) * 8;
	return (struct guard_cover){ .address = address, .size_bytes = size, .mask = mask };
}

static uint64_t word_floor(uint64_t address)
{
	return address & ~(uint64_t)(POINT_BYTES - 1);
}

/* Does it have more words than there are watchpoints? */
static bool is_large(const struct region *region)
{
	return region_end(region) - word_floor(region->start) > GUARD_BYTES;
}

static bool can_be_guarded(const struct region *region)
{
	return region->start && region->precise == MEMWATCH_PRECISE_AUTO &&
	       !(region->flags & (MEMWATCH_REGION_HASHED | MEMWATCH_REGION_EXTERNAL | REGION_LOST | REGION_POLLED));
}

static struct guard_cover cover_of_word(const struct region *region, uint64_t word)
{
	return cover_of(max_u64(word, region->start), min_u64(word + POINT_BYTES, region_end(region)));
}

/* Sets the covers that the region needs, a large one at its spots; 0: it cannot be guarded. */
static unsigned covers_of(const struct region *region, const uint64_t spots[SPOTS], struct guard_cover covers[POINTS])
{
	unsigned n = 0;
	if (!can_be_guarded(region))
		return 0;
	for (unsigned i = 0; is_large(region) && spots && i < SPOTS && spots[i]; i++)
		covers[n++] = cover_of_word(region, spots[i]);
	for (uint64_t at = word_floor(region->start); !is_large(region) && at < region_end(region); at += POINT_BYTES)
		covers[n++] = cover_of_word(region, at);
	return n;
}

/* The cover's value as `bytes`, the region's, have it; what is not the region's is 0. */
static uint64_t value_of(const struct guard_cover *cover, const struct region *region, const uint8_t *bytes)
{
	uint64_t from = max_u64(cover->address, region->start), value = 0;
	uint64_t to = min_u64(cover->address + cover->size_bytes, region_end(region));
	memcpy((uint8_t *)&value + (from - cover->address), bytes + (from - region->start), to - from);
	return value;
}

/* --- coming and going --- */

static void release(struct engine *engine, struct guard *guard)
{
	for (unsigned i = 0; i < guard->n_covers; i++)
		engine->hits->remove(guard->covers[i].point);
	*guard = (struct guard){ 0 };
}

void guard_remove(struct engine *engine, struct region *region)
{
	if (!guard_holds(region))
		return;
	release(engine, guard_of(engine, region));
	region->point = 0;
}

static void take_back(struct engine *engine, const struct guard *guard)
{
	struct region *region = region_by_ticket(&engine->regions, guard->region);
	if (region)
		guard_remove(engine, region);
}

static struct guard *free_slot(struct engine *engine)
{
	for (unsigned i = 0; i < POINTS; i++)
		if (!engine->guards->slots[i].region)
			return &engine->guards->slots[i];
	return NULL;
}

enum lending { LENT, NOT_NOW, REFUSED };

/* With what is free. NOT_NOW: that is not enough; REFUSED: by the system, which others may have asked before. */
static enum lending guard_add(struct engine *engine, struct region *region, const uint64_t spots[SPOTS])
{
	struct guard *guard = free_slot(engine);
	struct guard_cover covers[POINTS];
	unsigned n = covers_of(region, spots, covers);
	uint64_t now_ns = time_monotonic_ns();
	uint32_t limit = hits_max(engine);
	if (!guard || !n || !limit || n > engine->hits->n_free() || region->point)
		return NOT_NOW;
	guard->n_covers = 0;
	for (unsigned i = 0; i < n; i++) {
		struct guard_cover *cover = &guard->covers[guard->n_covers];
		*cover = covers[i];
		cover->value = value_of(cover, region, region->shadow);
		if (engine->hits->add(cover->address, cover->size_bytes, cover->value, limit, &cover->point)) {
			release(engine, guard);
			return REFUSED;
		}
		guard->n_covers++;
	}
	guard->region = region_ticket(region);
	guard->is_partial = is_large(region);
	guard->lease_end_ns = now_ns + LEASE_NS;
	guard->used_ns = now_ns;
	region->point = (uint8_t)(POINTS + 1 + (guard - engine->guards->slots));
	return LENT;
}

static bool has_neighbours(const struct engine *engine, const struct region *region)
{
	const struct backend *backend = engine_backend_of(engine, region->start);
	return engine->source && backend && backend->source && region->start != page_floor(region->start);
}

/* The next partial one; NULL: there is none. */
static struct guard *partial(struct engine *engine)
{
	for (unsigned i = 0; i < POINTS; i++)
		if (engine->guards->slots[i].region && engine->guards->slots[i].is_partial)
			return &engine->guards->slots[i];
	return NULL;
}

void guard_offer(struct engine *engine, struct region *region)
{
	struct guard_cover covers[POINTS];
	unsigned n = has_neighbours(engine, region) ? covers_of(region, NULL, covers) : 0;
	while (engine->hits->n_free() < n && partial(engine))
		take_back(engine, partial(engine));
	if (n)
		guard_add(engine, region, NULL);
}

static unsigned n_points(const struct engine *engine)
{
	unsigned n = 0;
	for (unsigned i = 0; i < POINTS; i++)
		n += engine->guards->slots[i].n_covers;
	return n;
}

void guard_stats(const struct engine *engine, struct memwatch_stats *stats)
{
	stats->watchpoints.used += n_points(engine);
	stats->watchpoints.hits += engine->guards->n_hits;
}

/* The one that was hit longest ago; NULL: there is none. */
static struct guard *idlest(struct engine *engine)
{
	struct guard *found = NULL;
	for (unsigned i = 0; i < POINTS; i++) {
		struct guard *guard = &engine->guards->slots[i];
		if (guard->region && (!found || guard->used_ns < found->used_ns))
			found = guard;
	}
	return found;
}

void guard_yield(struct engine *engine)
{
	while (!engine->hits->n_free() && idlest(engine))
		take_back(engine, idlest(engine));
}

/* --- who needs one --- */

static struct guard_candidate *candidate_of(struct guards *guards, uint64_t ticket)
{
	struct guard_candidate *oldest = guards->candidates;
	for (unsigned i = 0; i < GUARD_CANDIDATES; i++) {
		if (guards->candidates[i].region == ticket)
			return &guards->candidates[i];
		if (guards->candidates[i].since_ns < oldest->since_ns)
			oldest = &guards->candidates[i];
	}
	*oldest = (struct guard_candidate){ .region = ticket };
	return oldest;
}

/* Does the word's page hold other bytes, too? */
static bool shares_page(const struct region *region, uint64_t word)
{
	return region->start > page_floor(word) || region_end(region) < page_floor(word) + PAGE_BYTES;
}

/* The newest comes first; one that is there already moves up. */
static void remember_spot(struct guard_candidate *candidate, uint64_t word)
{
	unsigned i = 0;
	while (i < SPOTS - 1 && candidate->spots[i] != word)
		i++;
	memmove(candidate->spots + 1, candidate->spots, i * sizeof *candidate->spots);
	candidate->spots[0] = word;
}

void guard_suggest(struct engine *engine, const struct region *region)
{
	uint64_t now_ns = time_monotonic_ns(), word = word_floor(region->start + engine->diff.ranges[0].offset);
	if (!hits_max(engine) || !can_be_guarded(region) ||
	    (is_large(region) ? !shares_page(region, word) : region->point != 0))
		return;
	struct guard_candidate *candidate = candidate_of(engine->guards, region_ticket(region));
	if (now_ns - candidate->since_ns > MEMORY_NS) {
		candidate->since_ns = now_ns;
		candidate->n = 0;
	}
	candidate->n++;
	remember_spot(candidate, word);
}

/* Takes guards back that are idle or out of lease, the idlest first, until there is room for the region. */
static void make_room(struct engine *engine, unsigned n, uint64_t now_ns)
{
	for (struct guard *guard; engine->hits->n_free() < n && (guard = idlest(engine));) {
		if (now_ns < guard->lease_end_ns && now_ns - guard->used_ns < IDLE_NS)
			return;
		take_back(engine, guard);
	}
}

static void promote(struct engine *engine, struct guard_candidate *candidate, uint64_t now_ns)
{
	struct region *region = region_by_ticket(&engine->regions, candidate->region);
	struct guard_cover covers[POINTS];
	bool room = engine->hits->n_free() > 0;
	if (!region || !candidate->n || now_ns < candidate->not_before_ns ||
	    (!room && !guard_holds(region) && candidate->n < WANTED_MUCH))
		return;
	guard_remove(engine, region); /* of a large one other words have changed */
	if (candidate->n >= WANTED_MUCH)
		make_room(engine, covers_of(region, candidate->spots, covers), now_ns);
	enum lending lending = guard_add(engine, region, candidate->spots);
	if (lending == LENT && is_large(region))
		candidate->not_before_ns = now_ns + MOVE_NS;
	else if (lending == REFUSED || (lending == NOT_NOW && candidate->n >= WANTED_MUCH))
		candidate->not_before_ns = now_ns + IDLE_NS;
	if (lending != NOT_NOW) /* who was refused is not offered one again before its next change without an author */
		candidate->n = 0;
}

/* --- on the worker --- */

/* Lets those go on that were hit too often. Did one of them? */
static bool resume(const struct engine *engine, const struct guard *guard)
{
	bool resumed = false;
	struct hit_state state;
	for (unsigned i = 0; i < guard->n_covers; i++) {
		engine->hits->state(guard->covers[i].point, &state);
		if (state.exhausted)
			resumed |= engine->hits->resume(guard->covers[i].point);
	}
	return resumed;
}

/* Has it been exhausted again and again? */
static bool is_hot(const struct engine *engine, struct guard *guard, uint64_t now_ns)
{
	if (!resume(engine, guard))
		return false;
	guard->n_hot = now_ns - guard->resumed_ns < HOT_NS ? guard->n_hot + 1 : 0;
	guard->resumed_ns = now_ns;
	return guard->n_hot >= HOT_MAX;
}

void guard_pass(struct engine *engine)
{
	uint64_t now_ns = time_monotonic_ns();
	bool traced = n_points(engine) && engine->hits->tick(now_ns);
	for (unsigned i = 0; i < POINTS; i++) {
		struct guard *guard = &engine->guards->slots[i];
		if (guard->region && (traced || is_hot(engine, guard, now_ns))) {
			candidate_of(engine->guards, guard->region)->not_before_ns = now_ns + LEASE_NS;
			take_back(engine, guard);
		}
	}
	for (unsigned i = 0; i < GUARD_CANDIDATES && !traced; i++)
		promote(engine, &engine->guards->candidates[i], now_ns);
}

static struct guard_cover *cover_of_point(struct engine *engine, uint32_t point)
{
	for (unsigned i = 0; i < POINTS; i++) {
		struct guard *guard = &engine->guards->slots[i];
		for (unsigned c = 0; c < guard->n_covers; c++)
			if (guard->covers[c].point == point) {
				guard->used_ns = time_monotonic_ns();
				return &guard->covers[c];
			}
	}
	return NULL;
}

void guard_take(struct engine *engine, const struct hit *hit)
{
	struct guard_cover *cover = hit->n ? cover_of_point(engine, hit->point) : NULL;
	if (!cover)
		return;
	uint64_t changed = (hit->old_value ^ hit->new_value) & cover->mask;
	struct taken note = { .time_ns = atomic_load_explicit(&hit->time_ns, memory_order_relaxed),
			      .address = hit->address + (changed ? (unsigned)__builtin_ctzll(changed) / 8 : 0),
			      .ip = hit->ip,
			      .thread_id = hit->thread_id,
			      .location = hit->location,
			      .point = hit->point,
			      .old_value = hit->old_value,
			      .new_value = hit->new_value };
	engine->guards->n_hits++;
	if (hit->n > cover->n) {
		cover->n = hit->n;
		cover->value = hit->new_value;
		cover->hit_ns = note.time_ns;
	}
	if (changed)
		who_add(&engine->who, &note);
}

/* The first hit of the cover's that had a part in what changed there, if they lead all the way. */
static const struct taken *author_of(struct engine *engine, const struct guard_cover *cover, uint64_t from, uint64_t to)
{
	const struct taken *author = NULL, *note = NULL;
	uint64_t value = from, changed = (from ^ to) & cover->mask;
	while (changed && (note = who_next(&engine->who, cover->address, note))) {
		if (note->point != cover->point || (note->old_value ^ value) & cover->mask)
			continue;
		if (!author && (note->old_value ^ note->new_value) & changed)
			author = note;
		value = note->new_value;
		if (author && !((value ^ to) & cover->mask))
			return author;
	}
	return NULL;
}

void guard_keep(struct engine *engine, const struct region *region)
{
	const struct guard *guard = guard_of(engine, region);
	for (unsigned i = 0; i < guard->n_covers; i++)
		engine->pass.guarded[i] = value_of(&guard->covers[i], region, region->shadow);
}

const struct taken *guard_find(struct engine *engine, const struct region *region)
{
	const struct guard *guard = guard_of(engine, region);
	const struct taken *first = NULL;
	for (unsigned i = 0; i < guard->n_covers; i++) {
		const struct guard_cover *cover = &guard->covers[i];
		const struct taken *author =
			author_of(engine, cover, engine->pass.guarded[i], value_of(cover, region, region->shadow));
		if (author && (!first || author->time_ns < first->time_ns))
			first = author;
	}
	return first && !who_is_own(&engine->who, first) ? first : NULL;
}

void guard_settle(struct engine *engine, const struct region *region)
{
	struct guard *guard = guard_of(engine, region);
	for (unsigned i = 0; i < guard->n_covers; i++) {
		struct guard_cover *cover = &guard->covers[i];
		uint64_t value = value_of(cover, region, region->shadow);
		if (!((value ^ cover->value) & cover->mask) || cover->hit_ns >= engine->pass.start_ns)
			continue;
		if (engine->hits->correct(cover->point, cover->n, value))
			cover->value = value;
	}
}
