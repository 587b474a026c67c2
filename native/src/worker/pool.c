/*
 * pool.c -- DESIGN: strings by value, one behind the other, and a hash table of them: for all symbol tables that ever
 * were. Never emptied, and of a fixed size.
 */
#include "pool.h"

#include "../base/mem.h"

#include <string.h>

enum { POOL_SLOTS = 1 << 14, POOL_BYTES = 2 << 20 };

static struct {
	char *text;
	const char **slots;
	size_t n_text, n_slots;
} pool;

static uint64_t hash_text(const char *text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return hash ^ hash >> 29;
}

static bool is_ready(void)
{
	if (!pool.text)
		pool.text = mem_map(POOL_BYTES);
	if (!pool.slots)
		pool.slots = mem_map(POOL_SLOTS * sizeof *pool.slots);
	return pool.text && pool.slots;
}

const char *pool_intern(const char *text)
{
	if (!text || !*text || !is_ready())
		return "";
	size_t i = hash_text(text) & (POOL_SLOTS - 1);
	for (; pool.slots[i]; i = (i + 1) & (POOL_SLOTS - 1))
		if (strcmp(pool.slots[i], text) == 0)
			return pool.slots[i];
	size_t size = strlen(text) + 1;
	if (pool.n_slots >= POOL_SLOTS / 2 || size > POOL_BYTES - pool.n_text)
		return "";
	char *copy = memcpy(pool.text + pool.n_text, text, size);
	pool.n_text += size;
	pool.n_slots++;
	return pool.slots[i] = copy;
}
