/*
 * who.c -- DESIGN: a window's notes in an array with a hash index by page, made anew for each pass. A change asks by
 * its pages, or, when it has more pages than there are notes, by the notes. Within a page the first note wins; one that
 * overlaps the changed bytes wins over one that does not, however early.
 *
 * A note is taken before its store runs. So a pass that reads a page again after it was armed may tell of a store whose
 * note is the next window's, and a note that came while the pass was under way may belong to a store that is still to
 * come. Both name the page's writer at most: a change that they overlap may be somebody else's.
 */
#include "who.h"

#include "../base/hash.h"
#include "../base/store.h"

#include <string.h>

void who_fini(struct who *who)
{
	mem_free(who->notes);
	mem_free(who->heads);
	*who = (struct who){ 0 };
}

bool who_add(struct who *who, const struct taken *note)
{
	if (!mem_reserve(&who->notes, &who->capacity, (size_t)who->n + 1, sizeof *who->notes))
		return false;
	who->notes[who->n++] = *note;
	return true;
}

void who_drain(struct who *who, struct ring *ring)
{
	struct note note;
	for (uint64_t place; place = ring_tail(ring), ring_pop(ring, &note);) {
		struct taken taken = { .time_ns = atomic_load_explicit(&note.time_ns, memory_order_relaxed),
				       .place = place,
				       .address = note.address,
				       .ip = note.ip,
				       .thread_id = note.thread_id,
				       .location = note.location,
				       .told = place < who->n_told };
		who->n_drained = place + 1;
		if (!who_add(who, &taken))
			atomic_fetch_add(&ring->dropped, 1);
	}
}

void who_added(struct who *who, const struct ring *ring)
{
	who->n_added = ring_head(ring);
}

void who_begin(struct who *who, struct ring *ring)
{
	who_drain(who, ring);
	who->n_collected = who->n;
}

void who_close_window(struct who *who)
{
	who->n_window = who->n;
	who->n_closed = who->n_drained;
}

static uint32_t *head_of(const struct who *who, uint64_t address)
{
	uint64_t page = address >> PAGE_SHIFT;
	return &who->heads[(hash_word(page) >> 32) & (who->n_heads - 1)];
}

void who_index(struct who *who)
{
	uint32_t wanted = 64;
	while (wanted < who->n * 2)
		wanted *= 2;
	if (wanted > who->n_heads || wanted < who->n_heads / 64) {
		uint32_t *heads = mem_grow(who->heads, wanted * sizeof *heads);
		if (heads) {
			who->heads = heads;
			who->n_heads = wanted;
		}
	}
	who->n_indexed = who->n;
	if (!who->n_heads) {
		who->n = who->n_indexed = 0;
		return;
	}
	memset(who->heads, 0, who->n_heads * sizeof *who->heads);
	memset(who->stores, 0, sizeof who->stores);
	for (uint32_t i = who->n; i-- > 0;) { /* backwards: the first comes first */
		uint32_t *head = head_of(who, who->notes[i].address);
		who->notes[i].next = *head;
		*head = i + 1;
	}
}

void who_read(struct who *who, struct span pages, uint64_t n_noted)
{
	if (n_noted <= who->n_closed)
		return;
	struct reading reading = { pages, n_noted };
	/* Without room the last one takes the gap along: of notes there, too, a pass is believed to have told. */
	while (who->n_readings &&
	       (who->n_readings == READINGS || who->readings[who->n_readings - 1].pages.end > reading.pages.start)) {
		const struct span *last = &who->readings[--who->n_readings].pages;
		reading.pages.start = min_u64(reading.pages.start, last->start);
		reading.pages.end = max_u64(reading.pages.end, last->end);
	}
	who->readings[who->n_readings++] = reading;
}

/* How many notes the ring had been given when the page was read. */
static uint64_t noted_before(const struct who *who, uint64_t address)
{
	uint32_t from = 0, to = who->n_readings;
	while (from < to) {
		uint32_t middle = from + (to - from) / 2;
		if (who->readings[middle].pages.end <= address)
			from = middle + 1;
		else
			to = middle;
	}
	bool holds = from < who->n_readings && who->readings[from].pages.start <= address;
	return holds ? who->readings[from].n_noted : who->n_closed;
}

void who_told(struct who *who, struct ring *ring, const struct span_list *written, const struct span_list *polled,
	      uint64_t n_read)
{
	who_drain(who, ring);
	who->n_told = n_read; /* a note may wait in the ring behind one that is still being written */
	for (uint32_t i = 0; i < who->n; i++) {
		struct taken *note = &who->notes[i];
		note->told |= note->place < noted_before(who, note->address) &&
			      (span_list_holds(written, note->address) || span_list_holds(polled, note->address));
	}
	who->n_readings = 0;
}

void who_keep(struct who *who, uint64_t since_ns)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < who->n; i++) {
		const struct taken *note = &who->notes[i];
		bool came_late = i >= who->n_collected && !note->told && !note->point;
		if (note->time_ns >= since_ns || came_late)
			who->notes[n++] = *note;
	}
	who->n = n;
	who->n_indexed = 0;
}

const struct taken *who_next(const struct who *who, uint64_t address, const struct taken *before)
{
	uint32_t i = !who->n_indexed ? 0 : before ? before->next : *head_of(who, address);
	while (i && page_floor(who->notes[i - 1].address) != page_floor(address))
		i = who->notes[i - 1].next;
	return i ? &who->notes[i - 1] : NULL;
}

bool who_is_own(const struct who *who, const struct taken *note)
{
	return note->thread_id == who->own_thread_id || note->thread_id == who->resolver_id ||
	       note->location == MEMWATCH_LOCATION_OWN;
}

/* The instruction's store, decoded once a pass. */
static const struct store *store_at(struct who *who, uint64_t ip)
{
	struct store *store = &who->stores[(hash_word(ip) >> 32) % STORES];
	if (store->ip != ip)
		*store = (struct store){ ip, store_width(ip), store_writes(ip) == 0 };
	return store;
}

struct question {
	struct who *who;
	const struct region *region;
	const struct diff *diff;
	bool own;
	const struct taken *exact, *page;
};

/*
 * Does the note's store overlap range `i`? What the last of too many ranges lumps together proves nothing. A store that
 * began on the page before has its fault at the page's start.
 */
static bool overlaps(const struct question *q, const struct taken *note, const struct store *store, uint32_t i)
{
	uint64_t from = q->region->start + q->diff->ranges[i].offset, to = from + q->diff->ranges[i].size_bytes;
	uint64_t width = store && store->width && store->width != STORE_REP ? store->width : 1;
	uint64_t before = note->address == page_floor(note->address) ? width - 1 : 0;
	if (i == MEMWATCH_CHANGES_MAX - 1)
		return false;
	return note->address - before < to && note->address + width > from;
}

/*
 * Had the region's first value been read when the note was taken? The clock alone would not do: it may go back. Where
 * it does between note and region, in one window, the answer is wrong.
 */
static bool is_younger(const struct who *who, const struct region *region, const struct taken *note)
{
	return note->place >= who->n_added || note->time_ns > region->added_ns;
}

/* A note of this window alone, of a store that has run, and that no late signal told of. */
static bool may_prove(const struct who *who, const struct taken *note)
{
	return note->proven && !note->told && note->ip && !note->point && note - who->notes < who->n_window;
}

static void consider(struct question *q, const struct taken *note, uint32_t range)
{
	const struct store *store = note->ip && !note->point ? store_at(q->who, note->ip) : NULL;
	if (store && store->reads)
		return;
	if (who_is_own(q->who, note)) {
		q->own = true;
	} else if (may_prove(q->who, note) && is_younger(q->who, q->region, note) && overlaps(q, note, store, range)) {
		if (!q->exact || note->time_ns < q->exact->time_ns)
			q->exact = note;
	} else if (!q->page || note->time_ns < q->page->time_ns) {
		q->page = note;
	}
}

static void ask_page(const struct who *who, struct question *q, uint64_t page, uint32_t range)
{
	for (const struct taken *note = NULL; (note = who_next(who, page, note));)
		consider(q, note, range);
}

static void ask_note(struct question *q, const struct taken *note)
{
	for (uint32_t i = 0; i < q->diff->n_ranges; i++) {
		struct span pages =
			span_of(q->region->start + q->diff->ranges[i].offset, q->diff->ranges[i].size_bytes);
		if (note->address >= pages.start && note->address < pages.end)
			consider(q, note, i);
	}
}

const struct taken *who_find(struct who *who, const struct region *region, const struct diff *diff,
			     enum memwatch_attribution *ret_attribution, bool *ret_own)
{
	struct question q = { .who = who, .region = region, .diff = diff };
	uint64_t n_pages = 0;
	for (uint32_t i = 0; i < diff->n_ranges; i++)
		n_pages += diff->ranges[i].size_bytes / PAGE_BYTES + 1;
	if (n_pages > who->n) {
		for (uint32_t i = 0; i < who->n; i++)
			ask_note(&q, &who->notes[i]);
	} else {
		for (uint32_t i = 0; i < diff->n_ranges; i++) {
			struct span pages = span_of(region->start + diff->ranges[i].offset, diff->ranges[i].size_bytes);
			for (uint64_t page = pages.start; page < pages.end; page += PAGE_BYTES)
				ask_page(who, &q, page, i);
		}
	}
	*ret_own = q.own;
	*ret_attribution = q.exact  ? MEMWATCH_ATTRIBUTION_EXACT
			   : q.page ? MEMWATCH_ATTRIBUTION_PAGE
				    : MEMWATCH_ATTRIBUTION_NONE;
	return q.exact ? q.exact : q.page;
}
