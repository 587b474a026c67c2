/*
 * chain.c -- DESIGN: how values are kept. A number's value is in the event's row. Of other variables the file has a
 * base (the whole value, after some event) and patches (old and new bytes of what each event wrote). The value after an
 * event is the newest base up to it and the patches since. What eviction overtakes is folded into the base (evict.c).
 *
 * Runs on the recorder's thread. Loss: a chain breaks when an event of the variable was missed, or carried neither
 * patch nor values. It also breaks by changes that no event tells (filtered ones): the next event has no patch, and its
 * old value is not what the last one left, which a hash tells. Then the value is taken anew, from the event, the
 * watcher's history or the last bytes known. What lies between has a base without a value: never a wrong one.
 */
#include "chain.h"

#include "error.h"
#include "evict.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
	ROW_BYTES = 24,            /* about what a patch takes beside its bytes */
	GAP_BYTES = 16,            /* so many equal bytes end a patch, */
	PATCHES_MANY = 64,         /* and in an event with so many */
	GAP_MANY_BYTES = 4096,     /* so many */
	BASE_SHARE = 8,            /* of the file: what one base may take, */
	BASE_MAX_BYTES = 64 << 20, /* and no more than this */
	BASES_EIGHTHS = 3          /* of the file: what all bases may take */
};

static bool is_number(const struct memwatch_event *event)
{
	union memwatch_number_value value;
	static const uint8_t zeros[16];
	return event->item_bytes <= 8 &&
	       memwatch_number_read(event->format, event->item_bytes, zeros, &value) != MEMWATCH_NUMBER_NONE;
}

/* What is posted lists no ranges. */
bool chain_is_whole(const struct memwatch_event *event)
{
	if (event->values != MEMWATCH_VALUES_FULL || event->kind == MEMWATCH_EVENT_LOST)
		return false;
	return !event->n_changes || (event->new_value && event->item_bytes == event->size_bytes && is_number(event));
}

/* --- bases --- */

static uint64_t base_max_bytes(const struct run *run)
{
	uint64_t share = run->max_bytes / BASE_SHARE;
	return share < BASE_MAX_BYTES ? share : BASE_MAX_BYTES;
}

/* Whether the file may take `n` more bytes of bases; older runs make room. 1, or 0. */
static int base_fits(struct run *run, uint64_t n)
{
	int fits = n <= base_max_bytes(run);
	while (fits > 0 && run->now.bases_bytes + n > run->max_bytes / 8 * BASES_EIGHTHS)
		fits = evict_oldest_run(run);
	return fits;
}

/* The value after event `id`; NULL: it is not known. */
static int put_base(struct run *run, struct known *variable, int64_t id, const uint8_t *bytes, uint64_t n)
{
	variable->now.chain = bytes ? CHAIN_KNOWN : CHAIN_LOST;
	run->now.bases_bytes += bytes ? n : 0;
	run->new_bytes += bytes ? n + ROW_BYTES : ROW_BYTES;
	run->now.versions_written += bytes != NULL;
	run->now.versions_skipped += bytes == NULL;
	return db_run(&run->db, "INSERT INTO bases VALUES(NULL, ?, ?, ?)", "iib", variable->row, id, bytes, (size_t)n);
}

/* --- patches --- */

struct patches {
	struct run *run;
	const struct memwatch_event *event;
	unsigned n;
	size_t item_bytes; /* patches are of whole items; 1: of bytes */
	struct chain_cells *cells;
};

static int put_patch(struct patches *patches, uint64_t offset, const uint8_t *before, const uint8_t *after, size_t n)
{
	struct run *run = patches->run;
	patches->n++;
	run->new_bytes += 2 * n + ROW_BYTES;
	*patches->cells = (struct chain_cells){ .is_told = true };
	if (patches->n == 1 && patches->item_bytes > 1 && n == patches->item_bytes)
		*patches->cells = (struct chain_cells){ before, after, n, n, true, true };
	return db_run(&run->db, "INSERT INTO patches VALUES(?, ?, ?, ?)", "iibb", run_id_of(run, patches->event->seq),
		      (int64_t)offset, before, n, after, n);
}

static size_t first_difference(const uint8_t *before, const uint8_t *after, size_t at, size_t n)
{
	enum { BLOCK = 256 };
	while (at + BLOCK <= n && memcmp(before + at, after + at, BLOCK) == 0)
		at += BLOCK;
	while (at < n && before[at] == after[at])
		at++;
	return at;
}

/* Where the difference at `at` ends: before `gap` equal bytes. */
static size_t end_of_difference(const uint8_t *before, const uint8_t *after, size_t at, size_t n, size_t gap)
{
	size_t end = at + 1;
	for (size_t i = end; i < n && i - end < gap; i++)
		if (before[i] != after[i])
			end = i + 1;
	return end;
}

/* What differs in a run of bytes that begins at `offset` in the region. */
static int put_differences(struct patches *patches, uint64_t offset, const uint8_t *before, const uint8_t *after,
			   size_t n)
{
	size_t item = patches->item_bytes, at = 0, end;
	int error = 0;
	for (; !error && (at = first_difference(before, after, at, n)) < n; at = end) {
		size_t gap = patches->n < PATCHES_MANY ? GAP_BYTES : GAP_MANY_BYTES;
		end = end_of_difference(before, after, at, n, gap);
		size_t inside = (size_t)((offset + at) % item), begin = inside > at ? 0 : at - inside;
		size_t behind = (size_t)((offset + end) % item), stop = behind ? end + item - behind : end;
		stop = stop < n ? stop : n;
		error = put_patch(patches, offset + begin, before + begin, after + begin, stop - begin);
	}
	return error;
}

static struct patches patches_of(struct run *run, const struct memwatch_event *event, struct chain_cells *cells)
{
	size_t item = is_number(event) && event->item_bytes ? (size_t)event->item_bytes : 1;
	return (struct patches){ .run = run, .event = event, .item_bytes = item, .cells = cells };
}

static int put_event_patch(struct run *run, const struct memwatch_event *event, struct chain_cells *cells)
{
	struct patches patches = patches_of(run, event, cells);
	uint64_t span[2]; /* offset and size */
	int error = 0;
	for (uint64_t at = 0; !error && at < event->patch_bytes; at += sizeof span + span[1]) {
		memcpy(span, event->patch + at, sizeof span);
		error = put_differences(&patches, span[0], event->patch_old + at + sizeof span,
					event->patch + at + sizeof span, (size_t)span[1]);
	}
	run->now.versions_written++;
	return error;
}

static int put_value_patch(struct run *run, const struct memwatch_event *event, const uint8_t *before,
			   const uint8_t *after, struct chain_cells *cells)
{
	struct patches patches = patches_of(run, event, cells);
	run->now.versions_written++;
	return put_differences(&patches, 0, before, after, (size_t)event->size_bytes);
}

/* --- where whole values come from --- */

static uint8_t *room(const struct run *run, struct run_room *room, uint64_t n)
{
	if (n > base_max_bytes(run))
		return NULL;
	if (n > room->capacity) {
		uint8_t *bytes = realloc(room->bytes, (size_t)n);
		if (!bytes)
			return NULL;
		room->bytes = bytes;
		room->capacity = (size_t)n;
	}
	return room->bytes;
}

/* The value that the event carries, or its version in the watcher's history; NULL when it cannot be had. */
static const uint8_t *load(struct run *run, const struct memwatch_event *event, const uint8_t *value, const char *key,
			   struct run_room *into)
{
	uint8_t *bytes = !value && key[0] ? room(run, into, event->size_bytes) : NULL;
	if (!bytes)
		return value;
	int64_t n = memwatch_load(run->watcher, key, bytes, (size_t)event->size_bytes);
	return n == (int64_t)event->size_bytes ? bytes : NULL;
}

static const uint8_t *old_value(struct run *run, const struct memwatch_event *event)
{
	return load(run, event, event->old_value, event->storage_key_old, &run->before);
}

static const uint8_t *new_value(struct run *run, const struct memwatch_event *event)
{
	return load(run, event, event->new_value, event->storage_key_new, &run->after);
}

/* --- an event --- */

static bool has_patch(const struct run *run, const struct memwatch_event *event)
{
	return event->patch && event->patch_bytes <= base_max_bytes(run);
}

/* The value is taken anew: as it is after this event or, where that is gone, as it is now. */
static int take_anew(struct run *run, struct known *variable, const struct memwatch_event *event)
{
	int64_t id = run_id_of(run, event->seq);
	uint64_t seq = 0, n = event->size_bytes;
	int fits = base_fits(run, n);
	if (fits < 0)
		return fits;
	const uint8_t *value = fits ? new_value(run, event) : NULL;
	bool is_news = value || variable->now.chain != CHAIN_LOST;
	int error = is_news ? put_base(run, variable, id, value, n) : 0;
	uint8_t *now = error || value || !fits ? NULL : room(run, &run->after, n);
	if (!now || memwatch_region_snapshot(run->watcher, event->region_id, now, (size_t)n, &seq) != (int64_t)n)
		return error;
	return seq > event->seq ? put_base(run, variable, run_id_of(run, seq), now, n) : 0;
}

static uint64_t hash_of(const uint8_t *value, uint64_t n)
{
	return value ? XXH3_64bits(value, (size_t)n) : 0;
}

/* Whether the value that this event found is what the file has after the one before it. */
static bool goes_on(struct run *run, const struct known *variable, const struct memwatch_event *event)
{
	if (variable->now.chain != CHAIN_KNOWN || run_id_of(run, run->now.gap_seq) > variable->now.last_id)
		return false;
	return event->patch || hash_of(old_value(run, event), event->size_bytes) == variable->now.hash;
}

/*
 * A first event, or one with a patch: then the value before it is as old as the last event, or as the gap. 1; 0 when
 * that is not so, or it cannot be had: then it has to be taken anew.
 */
static int begin(struct run *run, struct known *variable, const struct memwatch_event *event)
{
	int64_t first = run_id_of(run, event->seq) - 1, gap = run_id_of(run, run->now.gap_seq);
	int64_t last = variable->now.last_id, id = gap > last ? gap : last;
	bool may = variable->now.chain == CHAIN_NONE || event->patch;
	int fits = may ? base_fits(run, event->size_bytes) : 0;
	const uint8_t *value = fits > 0 ? old_value(run, event) : NULL;
	if (!value)
		return fits < 0 ? fits : 0;
	if (variable->now.chain == CHAIN_NONE || id > first)
		id = first;
	int error = put_base(run, variable, id, value, event->size_bytes);
	return error ? error : 1;
}

static int add_patched(struct run *run, struct known *variable, const struct memwatch_event *event,
		       struct chain_cells *cells)
{
	int begun = goes_on(run, variable, event) ? 1 : begin(run, variable, event), error = 0;
	if (begun < 0)
		return begun;
	variable->now.hash = hash_of(event->new_value, event->size_bytes);
	if (has_patch(run, event)) {
		error = put_event_patch(run, event, cells);
	} else {
		const uint8_t *after = new_value(run, event), *before = after ? old_value(run, event) : NULL;
		variable->now.hash = hash_of(after, event->size_bytes);
		if (before)
			error = put_value_patch(run, event, before, after, cells);
		begun = begun && before;
	}
	return error || begun ? error : take_anew(run, variable, event);
}

int chain_add(struct run *run, struct known *variable, const struct memwatch_event *event,
	      struct chain_cells *ret_cells)
{
	*ret_cells = (struct chain_cells){ .is_told = variable->whole };
	if (event->kind == MEMWATCH_EVENT_LOST || event->values != MEMWATCH_VALUES_FULL)
		return 0;
	if (variable->whole) {
		bool numbers = event->n_changes != 0;
		*ret_cells = (struct chain_cells){ event->old_value,         event->new_value, (size_t)event->old_bytes,
						   (size_t)event->new_bytes, numbers,          true };
		run->now.versions_written++;
		return 0;
	}
	return add_patched(run, variable, event, ret_cells);
}
