/*
 * base.h -- the floor that fault/ and worker/ both stand on: defaults, pages, errors, time, futexes, threads.
 */
#ifndef BASE_H
#define BASE_H

#include "mem.h"

#include <memwatch/memwatch.h>

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The defaults; each can be set at run time, see struct memwatch_options. */
#define RING_CAPACITY 65536       /* notes of 32 bytes */
#define WRITABLE_WINDOW_MS 5      /* how long a page stays open: writes within it coalesce */
#define SMALL_COPY_THRESHOLD 4096 /* up to this size an event carries the values themselves */
#define PREVIEW_SIZE 256          /* bytes of old_preview and new_preview */
#define ATTRIBUTION_BUDGET 0.01   /* share of one core that ordinary page faults may cost */
#define POLL_BUDGET 0.01          /* share of one core that looking at polled memory may cost */
#define STACK_DEPTH 1
#define EVENT_CAPACITY 65536
#define EVENT_BUDGET (UINT64_C(64) << 20)
#define HISTORY_BUDGET (UINT64_C(64) << 20)

enum {
	PAGE_SHIFT = 12,
	PAGE_BYTES = 1 << PAGE_SHIFT,
	SWEEP_MAX_MS = 250,   /* the sweep's interval while nothing changes, */
	SWEEP_REST_MS = 2000, /* and when nothing has for SWEEP_REST_AFTER_MS */
	SWEEP_REST_AFTER_MS = 5000,
	CACHE_LINE = 64
};

/* Where the user's addresses end. */
#ifdef __aarch64__
enum { ADDRESS_BITS = 48 };
#else
enum { ADDRESS_BITS = 47 };
#endif
#define ADDRESS_END (UINT64_C(1) << ADDRESS_BITS)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* A range of addresses, both ends on page borders. */
struct span {
	uint64_t start, end;
};

static inline uint64_t page_floor(uint64_t address)
{
	return address & ~(uint64_t)(PAGE_BYTES - 1);
}

static inline uint64_t page_ceil(uint64_t address)
{
	return page_floor(address + PAGE_BYTES - 1);
}

static inline struct span span_of(uint64_t address, uint64_t size_bytes)
{
	return (struct span){ page_floor(address), page_ceil(address + size_bytes) };
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* A growing list of spans; the worker's. */
struct span_list {
	struct span *spans;
	size_t n, capacity;
};

/* Appends, merging with the last span where they touch. 0 or -ENOMEM. */
int span_list_add(struct span_list *list, uint64_t start, uint64_t end);
/* Makes room for `n` more; false without memory. */
bool span_list_reserve(struct span_list *list, size_t n);
/* Orders by start and merges. */
void span_list_sort(struct span_list *list);
/* Of a sorted list: the first span that ends after `address`. */
size_t span_list_after(const struct span_list *list, uint64_t address);
/* Of a sorted list. */
bool span_list_holds(const struct span_list *list, uint64_t address);
void span_list_fini(struct span_list *list);

/* Sets this thread's error sentence and returns `error`. */
int error_set(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Signal-safe. */
uint64_t time_realtime_ns(void);
uint64_t time_monotonic_ns(void);
/* Of this thread. */
uint64_t time_cpu_ns(void);

/* Waits until *word != expected, a wake, or the deadline (CLOCK_MONOTONIC; 0: none). */
void futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns);
/* Signal-safe. */
void futex_wake(_Atomic uint32_t *word);

/* A thread of ours: named; the host's signals are blocked on it, those that a fault raises are not. */
int thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *), void *arg);

/* Forks since the process began; a handle of another generation came through one. */
extern _Atomic uint32_t fork_generation;

void histogram_add(struct memwatch_histogram *histogram, uint64_t duration_ns);

#endif
