/*
 * kinds.h -- memory of every kind that can be watched, and random writes to it, the same in every run.
 */
#ifndef KINDS_H
#define KINDS_H

#include "watching.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LARGEST = 40 * PAGE };

enum memory { PRIVATE, SHARED, TWICE, HEAP };

struct kind {
	const char *name;
	enum memory memory;
	size_t offset, size_bytes; /* from a page's start */
	uint32_t flags;
	enum memwatch_precise precise;
	const char *backend, *format;
	uint8_t *start, *other; /* other: the second mapping */
};

#define LENT MEMWATCH_PRECISE_AUTO
#define PLAIN MEMWATCH_PRECISE_NEVER

static const struct kind kinds[] = {
	{ "private", PRIVATE, 0, 2 * PAGE, 0, PLAIN, NULL, "B", NULL, NULL },
	{ "unaligned", PRIVATE, 100, 2 * PAGE + 777, 0, PLAIN, NULL, "B", NULL, NULL },
	{ "large", PRIVATE, 24, LARGEST - 1000, 0, LENT, NULL, "B", NULL, NULL },
	{ "shared", SHARED, 0, 2 * PAGE, 0, PLAIN, NULL, "B", NULL, NULL },
	{ "shared part", SHARED, 3000, 3000, 0, LENT, NULL, "B", NULL, NULL },
	{ "twice", TWICE, 0, PAGE + 10, 0, PLAIN, NULL, "B", NULL, NULL },
	{ "heap", HEAP, 0, 24, 0, LENT, NULL, "B", NULL, NULL },
	{ "pinned", PRIVATE, 64, 3 * PAGE, MEMWATCH_REGION_PINNED, PLAIN, NULL, "B", NULL, NULL },
	{ "hashed", PRIVATE, 1000, 3 * PAGE, MEMWATCH_REGION_HASHED, PLAIN, NULL, NULL, NULL, NULL },
	{ "byte", PRIVATE, 77, 1, 0, LENT, NULL, "B", NULL, NULL },
	{ "last byte", PRIVATE, PAGE - 1, 1, 0, PLAIN, NULL, "B", NULL, NULL },
	{ "end", PRIVATE, PAGE - 30, 60, 0, PLAIN, NULL, "B", NULL, NULL },
	{ "odd numbers", PRIVATE, PAGE - 40 + 2, 800, 0, PLAIN, NULL, "i", NULL, NULL },
	{ "precise", PRIVATE, 8, 8, 0, MEMWATCH_PRECISE_REQUIRED, NULL, "B", NULL, NULL },
	{ "polled", PRIVATE, 500, PAGE, 0, PLAIN, "poll", "B", NULL, NULL },
};

static inline void map_kind(struct kind *kind)
{
	size_t n_bytes = (kind->offset + kind->size_bytes + PAGE - 1) / PAGE * PAGE + PAGE;
	int fd = kind->memory == TWICE ? memfd_create("twice", MFD_CLOEXEC) : -1;
	int flags = kind->memory == PRIVATE || kind->memory == HEAP ? MAP_PRIVATE : MAP_SHARED;
	CHECK(fd < 0 || ftruncate(fd, (off_t)n_bytes) == 0);
	if (fd < 0)
		flags |= MAP_ANONYMOUS;
	uint8_t *memory = kind->memory == HEAP ? calloc(1, 256)
					       : mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	CHECK(memory && memory != MAP_FAILED);
	kind->start = memory + kind->offset + (kind->memory == HEAP ? 96 : 0);
	if (fd >= 0)
		kind->other = (uint8_t *)mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, flags, fd, 0) + kind->offset;
}

__attribute__((noinline, no_sanitize("thread"), unused)) static void put(uint8_t *to, uint64_t value, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((volatile uint8_t *)to)[i] = (uint8_t)(value >> i % 8 * 8);
}

__attribute__((noinline, no_sanitize("thread"), unused)) static uint8_t get(const uint8_t *from)
{
	return *(const volatile uint8_t *)from;
}

static inline uint64_t shuffle(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state >> 11;
}

static inline void write_some(const struct kind *kind, uint8_t *start, uint64_t *state)
{
	size_t size = kind->size_bytes, at = shuffle(state) % size, n = size - at < 200 ? size - at : 200;
	switch (shuffle(state) % 6) {
	case 0: put(start, shuffle(state), size < 5000 ? size : 5000); break;
	case 1: put(start + size - 1, shuffle(state), 1); break;
	case 2: put(start + at, shuffle(state), shuffle(state) % n + 1); break;
	case 3: /* more ranges than an event lists */
		for (size_t i = at; i < size && i < at + 3000; i += 3 + shuffle(state) % 40)
			put(start + i, shuffle(state), 1);
		break;
	case 4: /* there and back, and the same again */
		put(start + at, get(start + at) ^ 1U, 1);
		put(start + at, get(start + at) ^ 1U, 1);
		break;
	default: put(start + at, shuffle(state), 1);
	}
}

static inline void write_in_child(const struct kind *kind, uint64_t *state)
{
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		write_some(kind, kind->start, state);
		_exit(0);
	}
	shuffle(state);
	waitpid(child, NULL, 0);
}

#endif
