/*
 * names.c -- DESIGN: a thread's name can be asked of the system only while it lives, and its writes are told later. So
 * with its first note each thread keeps the name that it has then, in the place that its id has in a table. A reader
 * takes what he finds only when the id stood there before and after.
 *
 * Loss: of threads whose ids share a place the one that came last has it; who renames himself later is known by the old
 * name when he has ended.
 */
#define _GNU_SOURCE
#include "names.h"

#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PLACES = 1024, BUSY = -1, WORDS = THREAD_NAME_BYTES / sizeof(uint64_t) };

struct place {
	_Atomic int32_t thread_id; /* 0: free; BUSY: being written */
	_Atomic uint64_t words[WORDS];
};

static union {
	struct place places[PLACES];
	char pages[(PLACES * sizeof(struct place) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES];
} own __attribute__((aligned(PAGE_BYTES))); /* handlers write to it: no watched variable is on its pages */

static struct place *place_of(int32_t thread_id)
{
	return &own.places[(uint32_t)thread_id % PLACES];
}

void names_open(void)
{
	for (unsigned i = 0; i < PLACES; i++)
		atomic_fetch_or(&own.places[i].thread_id, 0);
}

void names_keep(int32_t thread_id)
{
	struct place *place = place_of(thread_id);
	uint64_t words[WORDS] = { 0 };
	int error = errno;
	/* Not libc's wrapper, which may be bound lazily. */
	long refused = syscall(SYS_prctl, PR_GET_NAME, words, 0, 0, 0);
	errno = error;
	if (refused)
		return;
	int32_t before = atomic_load(&place->thread_id);
	if (before == BUSY || !atomic_compare_exchange_strong(&place->thread_id, &before, BUSY))
		return;
	for (unsigned i = 0; i < WORDS; i++)
		atomic_store(&place->words[i], words[i]);
	atomic_store(&place->thread_id, thread_id);
}

void names_find(int32_t thread_id, char ret_name[THREAD_NAME_BYTES])
{
	struct place *place = place_of(thread_id);
	bool is_there = atomic_load(&place->thread_id) == thread_id;
	uint64_t words[WORDS];
	for (unsigned i = 0; i < WORDS; i++)
		words[i] = atomic_load(&place->words[i]);
	memset(ret_name, 0, THREAD_NAME_BYTES);
	if (is_there && atomic_load(&place->thread_id) == thread_id)
		memcpy(ret_name, words, THREAD_NAME_BYTES - 1);
}
