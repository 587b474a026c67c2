/*
 * points.h -- what the tests of hardware watchpoints share, those that are asked for and those that are lent.
 */
#ifndef POINTS_H
#define POINTS_H

#include "watching.h"

/* A variable and its neighbours on one page. */
struct shared_page {
	volatile uint64_t before[8];
	volatile uint64_t a, b, c, d, e;
	volatile uint64_t after[32];
};

static inline int try_precise(memwatch *watcher, volatile void *address, size_t size_bytes, const char *name,
			      uint64_t *ret_id)
{
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	options.name = name;
	options.precise = MEMWATCH_PRECISE_REQUIRED;
	return memwatch_region_add(watcher, (void *)(uintptr_t)address, size_bytes, &options, ret_id);
}

static inline uint64_t add_precise(memwatch *watcher, volatile void *address, size_t size_bytes, const char *name)
{
	uint64_t id = 0;
	int error = try_precise(watcher, address, size_bytes, name, &id);
	if (error == -ENOTSUP)
		SKIP(memwatch_error());
	OK(error);
	return id;
}

static inline uint64_t number_of(const uint8_t *bytes, uint64_t size_bytes)
{
	uint64_t number = 0;
	CHECK(bytes);
	memcpy(&number, bytes, size_bytes);
	return number;
}

/* All events of a region so far, in order; how many. The caller gives room enough; the process ends with them. */
static inline int events_of(memwatch *watcher, uint64_t id, const struct memwatch_event **ret_events, int n_max)
{
	const struct memwatch_event *events[64];
	struct memwatch_cursor cursor = { .next = 0 };
	int n_found = 0;
	flush(watcher);
	for (int n; (n = memwatch_events_read(watcher, cursor.next, events, 64, &cursor)) > 0;)
		for (int i = 0; i < n; i++)
			if (events[i]->region_id == id && n_found < n_max)
				ret_events[n_found++] = events[i];
	CHECK_OP(n_found, <, n_max);
	return n_found;
}

/* The events tell one value after the other. */
static inline void check_chain(const struct memwatch_event *const *events, int n)
{
	for (int i = 0; i < n; i++) {
		CHECK(number_of(events[i]->old_value, events[i]->old_bytes) !=
		      number_of(events[i]->new_value, events[i]->new_bytes));
		if (i)
			CHECK_EQ(number_of(events[i]->old_value, events[i]->old_bytes),
				 number_of(events[i - 1]->new_value, events[i - 1]->new_bytes));
	}
}

static inline void check_exact(const struct memwatch_event *event, const char *symbol, pid_t thread)
{
	CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_EXACT);
	CHECK_EQ(event->where.reason, MEMWATCH_REASON_NONE);
	CHECK_TEXT(event->where.symbol, symbol);
	CHECK_EQ(event->where.thread_id, thread);
	CHECK_EQ(event->merged, 0);
}

#define WRITER __attribute__((noinline, noclone, no_sanitize("thread"), unused)) static void

WRITER store_one(volatile uint64_t *to, uint64_t value)
{
	*to = value;
}

#endif
