/*
 * memo.c -- DESIGN: a table that forgets. A key has one place, and the newest takes it. An entry is two words that are
 * written and read without a lock: the second is the number beside half of the key, the first is the other half, mixed
 * with the second. So an entry that two threads have written at once, or that is read while it is written, is nobody's.
 *
 * Loss: an entry that another one replaced is found out again.
 */
#include "memo.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum { ENTRIES = 4096, PAGE_BYTES = 4096 };
#define NUMBER_MASK UINT64_C(0xffffffff)

struct entry {
	_Atomic uint64_t mixed, data;
};

/* Handlers write it: on pages of its own, which nobody can ask us to watch. */
static struct entry entries[ENTRIES] __attribute__((aligned(PAGE_BYTES)));
_Static_assert(sizeof entries % PAGE_BYTES == 0, "whole pages");

void memo_open(void)
{
	for (size_t i = 0; i < ENTRIES; i += PAGE_BYTES / sizeof *entries)
		atomic_store(&entries[i].mixed, 0);
}

uint32_t memo_find(const struct memo_key *key)
{
	struct entry *entry = &entries[key->low % ENTRIES];
	uint64_t data = atomic_load_explicit(&entry->data, memory_order_relaxed);
	uint64_t mixed = atomic_load_explicit(&entry->mixed, memory_order_relaxed);
	bool same = (mixed ^ data) == key->low && ((data ^ key->high) & ~NUMBER_MASK) == 0;
	return same ? (uint32_t)(data & NUMBER_MASK) : 0;
}

void memo_keep(const struct memo_key *key, uint32_t number)
{
	struct entry *entry = &entries[key->low % ENTRIES];
	uint64_t data = (key->high & ~NUMBER_MASK) | number;
	atomic_store_explicit(&entry->data, data, memory_order_relaxed);
	atomic_store_explicit(&entry->mixed, key->low ^ data, memory_order_relaxed);
}
