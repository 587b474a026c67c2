/*
 * watching.h -- what the tests of the public interface share: memory, watchers, and waiting for events.
 */
#ifndef WATCHING_H
#define WATCHING_H

#include "harness.h"

#include <memwatch/memwatch.h>

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

enum { PAGE = 4096, PATIENCE_MS = 30000 };

/* The backends, a row each, in the order of their list. */
#define BACKENDS(row, arg) row(arg, uffd) row(arg, poll) row(arg, mprotect)
#define BACKEND_NAME(arg, backend) #backend,
static const char *const backend_names[] = { BACKENDS(BACKEND_NAME, ) };
enum { N_BACKENDS = sizeof backend_names / sizeof *backend_names };

/* One TEST for each backend; the body gets the backend's name. */
#define BACKEND_TEST_OF(name, backend)                                                                                 \
	TEST(name##_##backend)                                                                                         \
	{                                                                                                              \
		name(#backend);                                                                                        \
	}
#define BACKEND_TEST(name)                                                                                             \
	static void name(const char *backend);                                                                         \
	BACKENDS(BACKEND_TEST_OF, name)                                                                                \
	static void name(const char *backend)

/* A call that must succeed, with the library's sentence when it does not. */
#define OK(call)                                                                                                       \
	do {                                                                                                           \
		long long ok_result = (call);                                                                          \
		if (ok_result < 0)                                                                                     \
			FAIL("%s: %s (%s)", #call, strerror((int)-ok_result), memwatch_error());                       \
	} while (0)

/* A call that must fail so, and say a sentence about it. */
#define FAILS(call, error)                                                                                             \
	do {                                                                                                           \
		long long fails_result = (call);                                                                       \
		if (fails_result != -(error))                                                                          \
			FAIL("%s gives %lld, not -%s", #call, fails_result, #error);                                   \
		if (strlen(memwatch_error()) < 10)                                                                     \
			FAIL("%s says only \"%s\"", #call, memwatch_error());                                          \
	} while (0)

/* How long a load lasts, or how much of it there is: all of it in `make stress`, a quarter in every `make test`. */
static inline double of_load(double all)
{
	return getenv("MEMWATCH_STRESS") ? all : all / 4;
}

static inline uint8_t *map_pages(size_t n_pages)
{
	uint8_t *memory = mmap(NULL, n_pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	return memory;
}

/* Opens with these options; a backend that cannot run here skips the test. */
static inline memwatch *open_with(const struct memwatch_options *options)
{
	memwatch *watcher = NULL;
	int error = memwatch_open(options, &watcher);
	if (error == -ENOTSUP)
		SKIP(memwatch_error());
	OK(error);
	CHECK(watcher);
	return watcher;
}

static inline memwatch *open_backend(const char *backend)
{
	struct memwatch_options options;
	memwatch_options_init(&options);
	options.backend = backend;
	options.attribution_budget = 1; /* a loaded machine must not throttle the tests */
	return open_with(&options);
}

/* For tests that make one event of several writes: no window ends between them, only a flush looks. */
static inline memwatch *open_unhurried(void)
{
	struct memwatch_options options;
	memwatch_options_init(&options);
	options.attribution_budget = 1;
	options.window_ms = 10000;
	return open_with(&options);
}

static inline uint64_t add_region(memwatch *watcher, void *address, size_t size_bytes, const char *name)
{
	struct memwatch_region_options options;
	uint64_t id = 0;
	memwatch_region_options_init(&options);
	options.name = name;
	OK(memwatch_region_add(watcher, address, size_bytes, &options, &id));
	return id;
}

/* One that is lent no watchpoint: what its page's faults tell is all that is known. */
static inline uint64_t add_unlent(memwatch *watcher, void *address, size_t size_bytes, const char *name)
{
	struct memwatch_region_options options;
	uint64_t id = 0;
	memwatch_region_options_init(&options);
	options.name = name;
	options.precise = MEMWATCH_PRECISE_NEVER;
	OK(memwatch_region_add(watcher, address, size_bytes, &options, &id));
	return id;
}

static inline uint64_t add_external(memwatch *watcher, const char *name)
{
	struct memwatch_region_options options;
	uint64_t id = 0;
	memwatch_region_options_init(&options);
	options.name = name;
	options.flags = MEMWATCH_REGION_EXTERNAL;
	OK(memwatch_region_add(watcher, NULL, 0, &options, &id));
	return id;
}

static inline void flush(memwatch *watcher)
{
	OK(memwatch_flush(watcher, PATIENCE_MS));
}

/* The newest seq that is told so far. */
static inline uint64_t newest_told(memwatch *watcher)
{
	struct memwatch_cursor cursor;
	OK(memwatch_events_read(watcher, UINT64_MAX - 1, NULL, 0, &cursor));
	return cursor.newest;
}

/* The newest seq, after everything written before is an event. */
static inline uint64_t newest(memwatch *watcher)
{
	flush(watcher);
	return newest_told(watcher);
}

/* Lets threads run for as long as a load lasts, and on until there are more than `n_events`. */
static inline void let_run(memwatch *watcher, double all_s, uint64_t n_events)
{
	usleep((useconds_t)(of_load(all_s) * 1e6));
	WAIT_FOR(newest(watcher) > n_events);
}

/* The only event since `since`, after a flush; the caller unrefs it. */
static inline const struct memwatch_event *only_event(memwatch *watcher, uint64_t since)
{
	const struct memwatch_event *events[8];
	struct memwatch_cursor cursor;
	flush(watcher);
	int n = memwatch_events_read(watcher, since, events, 8, &cursor);
	OK(n);
	for (int i = 0; n != 1 && i < n; i++)
		fprintf(stderr, "event %llu: %s, %llu bytes\n", (unsigned long long)events[i]->seq, events[i]->name,
			(unsigned long long)events[i]->changed_bytes);
	CHECK_EQ(n, 1);
	return events[0];
}

/* The last event of the region after everything written before the call is one; NULL: none. */
static inline const struct memwatch_event *last_event(memwatch *watcher, uint64_t region_id)
{
	const struct memwatch_event *last = NULL, *events[64];
	struct memwatch_cursor cursor = { .next = 0 };
	flush(watcher);
	for (int n; (n = memwatch_events_read(watcher, cursor.next, events, 64, &cursor)) > 0;)
		for (int i = 0; i < n; i++) {
			if (events[i]->region_id != region_id) {
				memwatch_event_unref(events[i]);
				continue;
			}
			if (last)
				memwatch_event_unref(last);
			last = events[i];
		}
	return last;
}

/* Has the region ended because its memory vanished? */
static inline bool has_lost(memwatch *watcher, uint64_t region_id)
{
	const struct memwatch_event *event = last_event(watcher, region_id);
	bool lost = event && event->kind == MEMWATCH_EVENT_LOST;
	if (event)
		memwatch_event_unref(event);
	return lost;
}

static inline struct memwatch_stats stats_of(memwatch *watcher)
{
	struct memwatch_stats stats;
	OK(memwatch_stats_get(watcher, &stats));
	return stats;
}

static inline struct memwatch_region_info info_of(memwatch *watcher, uint64_t id)
{
	struct memwatch_region_info info;
	OK(memwatch_region_info_get(watcher, id, &info));
	return info;
}

static inline void check_ledger(const struct memwatch_ledger *ledger)
{
	CHECK_EQ(ledger->detected,
		 ledger->delivered + ledger->coalesced + ledger->unchanged + ledger->filtered + ledger->dropped);
}

/* The ledger balances for the watcher and for each of its regions. */
static inline void check_ledgers(memwatch *watcher)
{
	struct memwatch_region_info infos[16];
	uint64_t cursor = 0;
	flush(watcher);
	struct memwatch_stats stats = stats_of(watcher);
	check_ledger(&stats.ledger);
	for (int n; (n = memwatch_region_list(watcher, &cursor, infos, 16)) > 0;)
		for (int i = 0; i < n; i++)
			check_ledger(&infos[i].ledger);
}

/* A store that the compiler neither drops nor merges. */
static inline void poke(void *address, uint8_t value)
{
	*(volatile uint8_t *)address = value;
}

#endif
