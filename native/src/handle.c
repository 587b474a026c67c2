/*
 * handle.c -- DESIGN: watchers live in a table that is never given back, and a place of it is used again only when all
 * others were: so a pointer that is no watcher's any more, or never was, is told instead of followed. Each watcher
 * counts the calls that are inside it, together with its state in one word, and its end waits for them: exporters,
 * recorders and other threads may use a handle that somebody closes. Any thread; no lock, so that a fork finds none.
 *
 * Loss: after N_HANDLES more watchers a stale handle may be another's.
 */
#define _GNU_SOURCE
#include "handle.h"

#include <string.h>
#include <sys/mman.h>

enum {
	N_HANDLES = 1024,
	/* A watcher's `inside`: how many calls, and */
	HANDLE_COUNT = (1 << 24) - 1,
	HANDLE_OPEN = 1 << 24,
	HANDLE_CLAIMED = 1 << 25, /* somebody closes it */
	HANDLE_TAKEN = 1 << 26    /* the place is in use */
};

static struct memwatch *_Atomic table;
static _Atomic uint32_t next_place;

static struct memwatch *table_get(void)
{
	struct memwatch *found = atomic_load(&table);
	if (found)
		return found;
	size_t size_bytes = N_HANDLES * sizeof *found;
	struct memwatch *made =
		mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (made == MAP_FAILED)
		return NULL;
	if (atomic_compare_exchange_strong(&table, &found, made))
		return made;
	munmap(made, size_bytes);
	return found;
}

/* Whether the place is free, and ours now. That of a parent's watcher is, too. */
static bool place_take(struct memwatch *watcher)
{
	uint32_t was = atomic_load(&watcher->inside);
	if (was && !(was & HANDLE_OPEN && watcher->generation != atomic_load(&fork_generation)))
		return false;
	return atomic_compare_exchange_strong(&watcher->inside, &was, HANDLE_TAKEN);
}

struct memwatch *handle_new(void)
{
	struct memwatch *places = table_get();
	for (unsigned i = 0; places && i < N_HANDLES; i++) {
		struct memwatch *watcher = &places[atomic_fetch_add(&next_place, 1) % N_HANDLES];
		if (!place_take(watcher))
			continue;
		memset((uint8_t *)watcher + sizeof watcher->inside, 0, sizeof *watcher - sizeof watcher->inside);
		watcher->generation = atomic_load(&fork_generation);
		return watcher;
	}
	return NULL;
}

void handle_open(struct memwatch *watcher)
{
	atomic_fetch_or(&watcher->inside, HANDLE_OPEN);
}

static bool is_handle(const struct memwatch *watcher)
{
	const struct memwatch *places = atomic_load(&table);
	uintptr_t offset = (uintptr_t)watcher - (uintptr_t)places;
	return places && offset < N_HANDLES * sizeof *watcher && offset % sizeof *watcher == 0;
}

int handle_enter(struct memwatch *watcher)
{
	if (!watcher)
		return error_set(-EINVAL, "the watcher is NULL");
	if (!is_handle(watcher))
		return error_set(-EINVAL, "this is no watcher: it must come from memwatch_open");
	int error = 0;
	if (!(atomic_fetch_add(&watcher->inside, 1) & HANDLE_OPEN))
		error = error_set(-EBADF, "this watcher was closed");
	else if (watcher->generation != atomic_load(&fork_generation))
		error = error_set(-ECHILD,
				  "this watcher belongs to the process that forked this one; open another here");
	if (error)
		handle_leave(watcher);
	return error;
}

void handle_leave(struct memwatch *watcher)
{
	uint32_t was = atomic_fetch_sub(&watcher->inside, 1);
	if (!(was & HANDLE_OPEN) && (was & HANDLE_COUNT) == 1)
		futex_wake(&watcher->inside);
}

int handle_claim(struct memwatch *watcher)
{
	int error = handle_enter(watcher);
	if (error)
		return error;
	if (atomic_fetch_or(&watcher->inside, HANDLE_CLAIMED) & HANDLE_CLAIMED)
		error = error_set(-EBADF, "this watcher is being closed");
	handle_leave(watcher);
	return error;
}

void handle_shut(struct memwatch *watcher)
{
	atomic_fetch_and(&watcher->inside, ~(uint32_t)HANDLE_OPEN);
	for (uint32_t now; (now = atomic_load(&watcher->inside)) & HANDLE_COUNT;)
		futex_wait(&watcher->inside, now, 0);
}

void handle_free(struct memwatch *watcher)
{
	atomic_fetch_and(&watcher->inside, HANDLE_COUNT);
}
