/*
 * location.c -- DESIGN: two hash tables with open addressing over append-only storage: texts (file and function names)
 * and locations (file, function, line, caller). An entry is written whole and then published by one compare-and-swap of
 * its number into a slot, so that nobody waits for anybody; two threads that intern the same text at once may store it
 * twice. Locations are found by content, so that a code object that was freed and whose address is used again cannot be
 * mistaken for another.
 *
 * Loss, counted: chains of callers may fill CHAINS_MAX of the table; after that a location is kept without its caller,
 * so that lines themselves remain known. When a table is full the answer is 0 (unknown).
 */
#include "location.h"

#include "hash.h"

#include <string.h>

enum { TEXT_SLOTS = 1 << 16, LOCATION_SLOTS = 1 << 16, CHAINS_MAX = LOCATIONS_MAX / 4 * 3 };

struct location {
	uint32_t file, function; /* offsets into texts */
	int32_t line;
	uint32_t caller;
};

struct tables {
	_Atomic uint32_t text_slots[TEXT_SLOTS];         /* offset of a text, 0: free */
	_Atomic uint32_t location_slots[LOCATION_SLOTS]; /* number of a location, 0: free */
	struct location locations[LOCATIONS_MAX];        /* from 1 */
	char texts[LOCATION_TEXT_BYTES];                 /* from 1; each ends with a NUL */
};

static struct tables *_Atomic tables;
static _Atomic uint32_t n_locations; /* handed out */
static _Atomic uint32_t n_text_bytes = 1;
static _Atomic uint64_t n_dropped;

int location_open(void)
{
	if (atomic_load(&tables))
		return 0;
	struct tables *made = mem_map(sizeof *made);
	if (!made)
		return error_set(-ENOMEM, "no memory for the table of locations");
	for (size_t i = 0; i < sizeof *made; i += PAGE_BYTES) /* its pages now, not in a handler */
		((volatile char *)made)[i] = 0;
	atomic_store(&tables, made);
	return 0;
}

static uint32_t text_store(struct tables *t, const char *text, size_t n)
{
	uint32_t at = atomic_fetch_add_explicit(&n_text_bytes, (uint32_t)n + 1, memory_order_relaxed);
	if (at + n + 1 > LOCATION_TEXT_BYTES) {
		atomic_fetch_sub_explicit(&n_text_bytes, (uint32_t)n + 1, memory_order_relaxed);
		return 0;
	}
	memcpy(t->texts + at, text, n);
	t->texts[at + n] = 0;
	return at;
}

static bool text_is(const struct tables *t, uint32_t at, const char *text, size_t n)
{
	return memcmp(t->texts + at, text, n) == 0 && t->texts[at + n] == 0;
}

static uint32_t text_intern(struct tables *t, const char *text, size_t n)
{
	uint32_t slot = (uint32_t)hash_bytes(text, n, 1), stored = 0;
	for (unsigned tries = 0; tries < 64; tries++, slot++) {
		_Atomic uint32_t *place = &t->text_slots[slot % TEXT_SLOTS];
		/* Pairs with the release below: a text whose offset is seen is whole. */
		uint32_t at = atomic_load_explicit(place, memory_order_acquire);
		if (!at) {
			if (!stored && !(stored = text_store(t, text, n)))
				return 0;
			if (atomic_compare_exchange_strong_explicit(place, &at, stored, memory_order_release,
								    memory_order_acquire))
				return stored;
		}
		if (at + n < LOCATION_TEXT_BYTES && text_is(t, at, text, n))
			return at;
	}
	return stored;
}

static uint32_t location_store(struct tables *t, const struct location *wanted)
{
	uint32_t end = wanted->caller ? CHAINS_MAX : LOCATIONS_MAX;
	uint32_t n = atomic_load_explicit(&n_locations, memory_order_relaxed);
	do {
		if (n + 1 >= end)
			return 0;
	} while (!atomic_compare_exchange_weak_explicit(&n_locations, &n, n + 1, memory_order_relaxed,
							memory_order_relaxed));
	t->locations[n + 1] = *wanted;
	return n + 1;
}

static uint32_t location_find(struct tables *t, const struct location *wanted)
{
	uint32_t slot = (uint32_t)hash_bytes((const char *)wanted, sizeof *wanted, 2), stored = 0;
	for (unsigned tries = 0; tries < 64; tries++, slot++) {
		_Atomic uint32_t *place = &t->location_slots[slot % LOCATION_SLOTS];
		/* Pairs with the release below, as for texts. */
		uint32_t number = atomic_load_explicit(place, memory_order_acquire);
		if (!number) {
			if (!stored && !(stored = location_store(t, wanted)))
				return 0;
			if (atomic_compare_exchange_strong_explicit(place, &number, stored, memory_order_release,
								    memory_order_acquire))
				return stored;
		}
		if (memcmp(&t->locations[number], wanted, sizeof *wanted) == 0)
			return number;
	}
	return stored;
}

uint32_t memwatch_location_intern(const char *file, size_t file_bytes, const char *function, size_t function_bytes,
				  int line, uint32_t caller)
{
	struct tables *t = atomic_load_explicit(&tables, memory_order_acquire);
	if (!t)
		return 0;
	if (file_bytes > LOCATION_FILE_MAX) {
		file += file_bytes - LOCATION_FILE_MAX;
		file_bytes = LOCATION_FILE_MAX;
		for (; file_bytes && (*file & 0xc0) == 0x80; file++, file_bytes--) /* do not begin inside a character */
			;
	}
	if (function_bytes > LOCATION_FUNCTION_MAX)
		for (function_bytes = LOCATION_FUNCTION_MAX;
		     function_bytes && (function[function_bytes] & 0xc0) == 0x80;)
			function_bytes--;
	struct location wanted = { text_intern(t, file, file_bytes), text_intern(t, function, function_bytes), line,
				   caller };
	uint32_t number = wanted.file && wanted.function ? location_find(t, &wanted) : 0;
	if (number)
		return number;
	atomic_fetch_add_explicit(&n_dropped, 1, memory_order_relaxed);
	wanted.caller = 0;
	return caller && wanted.file && wanted.function ? location_find(t, &wanted) : 0;
}

unsigned location_frames(uint32_t location, struct memwatch_frame *frames, unsigned n)
{
	const struct tables *t = atomic_load(&tables);
	unsigned i = 0;
	for (; t && location && location < LOCATIONS_MAX && i < n; location = t->locations[location].caller, i++) {
		const struct location *at = &t->locations[location];
		frames[i] = (struct memwatch_frame){ t->texts + at->file, t->texts + at->function, at->line };
	}
	return i;
}

void location_stats(uint64_t *ret_locations, uint64_t *ret_dropped)
{
	*ret_locations = atomic_load_explicit(&n_locations, memory_order_relaxed);
	*ret_dropped = atomic_load_explicit(&n_dropped, memory_order_relaxed);
}
