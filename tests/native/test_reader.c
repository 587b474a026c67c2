/*
 * test_reader.c -- reader.h: samples of many regions, waits that are broken off, keys that nobody gave.
 */
#include "watching.h"

#include <memwatch/reader.h>

/* --- samples ---------------------------------------------------------------------------------------------------- */

static uint64_t add_number(memwatch *watcher, void *address, size_t size_bytes, const char *format)
{
	struct memwatch_region_options options;
	uint64_t id;
	memwatch_region_options_init(&options);
	options.format = format;
	options.item_bytes = size_bytes;
	OK(memwatch_region_add(watcher, address, size_bytes, &options, &id));
	return id;
}

TEST(samples_are_what_the_infos_say)
{
	enum { N = 200 };
	struct memwatch_region_sample samples[7];
	double *numbers = (double *)(void *)map_pages(1);
	uint64_t cursor = 0;
	memwatch *watcher, *other;
	OK(memwatch_open(NULL, &watcher));
	OK(memwatch_open(NULL, &other));
	for (int i = 0; i < N; i++) {
		add_number(watcher, &numbers[i], sizeof *numbers, i % 2 ? "d" : "Q");
		if (i % 3 == 0)
			add_region(other, &numbers[i], 1, NULL);
	}
	for (int i = 0; i < N; i += 5)
		numbers[i] = i + 0.5;
	flush(watcher);
	int n_seen = 0, n_changed = 0;
	for (int n; (n = memwatch_region_sample_list(watcher, &cursor, samples, 7)) != 0;) {
		OK(n);
		for (int i = 0; i < n; i++, n_seen++) {
			const struct memwatch_region_sample *sample = &samples[i];
			struct memwatch_region_info info = info_of(watcher, sample->id);
			CHECK_EQ(info.address, (uintptr_t)&numbers[n_seen]);
			CHECK_EQ(sample->delivered, info.ledger.delivered);
			CHECK_EQ(sample->last_seq, info.last_seq);
			CHECK_EQ(sample->last_time_ns, info.last_time_ns);
			CHECK_EQ(sample->metric, info.metric);
			CHECK_EQ(sample->number, info.number);
			CHECK_EQ(sample->value.as_uint, info.value.as_uint);
			CHECK(memcmp(&sample->value, &numbers[n_seen], sizeof *numbers) == 0);
			n_changed += sample->last_seq != 0;
		}
	}
	CHECK_EQ(n_seen, N);
	CHECK_EQ(n_changed, N / 5);
	memwatch_close(other);
	memwatch_close(watcher);
}

/* --- waits ------------------------------------------------------------------------------------------------------ */

struct sleeper {
	memwatch *watcher;
	int woken;
	_Atomic int n_ended;
};

static void *sleep_twice(void *arg)
{
	struct sleeper *sleeper = arg;
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(memwatch_events_wait_or_wake(sleeper->watcher, 0, -1, &sleeper->woken), 0);
		atomic_fetch_add(&sleeper->n_ended, 1);
	}
	return NULL;
}

TEST(a_wait_can_be_woken_before_and_while_it_waits)
{
	struct sleeper sleeper = { .woken = 0 };
	int other = 0;
	pthread_t thread;
	OK(memwatch_open(NULL, &sleeper.watcher));
	memwatch_events_wake(sleeper.watcher, &sleeper.woken); /* kept: ends the first wait */
	CHECK(pthread_create(&thread, NULL, sleep_twice, &sleeper) == 0);
	WAIT_FOR(atomic_load(&sleeper.n_ended) == 1);
	memwatch_events_wake(sleeper.watcher, &other);
	usleep(10000); /* it waits now, most likely; another's wake does not end it */
	CHECK_EQ(sleeper.n_ended, 1);
	memwatch_events_wake(sleeper.watcher, &sleeper.woken);
	pthread_join(thread, NULL);
	CHECK_EQ(memwatch_events_wait_or_wake(sleeper.watcher, 0, -1, &other), 0);
	CHECK_EQ(memwatch_events_wait_or_wake(sleeper.watcher, 0, 10, &other), 0); /* a wake ends one wait */
	memwatch_close(sleeper.watcher);
}

/* --- keys ------------------------------------------------------------------------------------------------------- */

TEST(a_key_of_an_evicted_version_is_known)
{
	enum { LARGE = 100000 };
	struct memwatch_options options;
	uint8_t *memory = map_pages(LARGE / PAGE + 1);
	char first[MEMWATCH_KEY_SIZE];
	const struct memwatch_event *event;
	memwatch_options_init(&options);
	options.history_budget = 2 * LARGE;
	memwatch *watcher = open_with(&options);
	add_region(watcher, memory, LARGE, "large");
	for (int i = 1; i <= 5; i++) {
		memset(memory, i, LARGE);
		flush(watcher);
	}
	CHECK_EQ(memwatch_events_read(watcher, 0, &event, 1, NULL), 1);
	memcpy(first, event->storage_key_old, sizeof first);
	memwatch_event_unref(event);
	FAILS(memwatch_load(watcher, first, NULL, 0), ENOENT);
	CHECK_EQ(memwatch_key_known(watcher, first), 1);
	memwatch_close(watcher);
}

TEST(a_key_that_no_event_gave_is_told_from_one_that_was_evicted)
{
	uint8_t *memory = map_pages(1);
	char key[MEMWATCH_KEY_SIZE];
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	uint64_t other = add_region(watcher, memory, 1, "other"), id = add_region(watcher, memory + 64, 1, "a");
	for (int i = 0; i < 3; i++) {
		poke(memory + (i == 1 ? 0 : 64), (uint8_t)(i + 1));
		flush(watcher);
	}
	for (uint64_t seq = 0; seq < 5; seq++) {
		snprintf(key, sizeof key, "%016llx%016llx", (unsigned long long)id, (unsigned long long)seq);
		CHECK_EQ(memwatch_key_known(watcher, key), seq != 2 && seq != 4); /* 2 is the other region's */
		CHECK_EQ(memwatch_load(watcher, key, NULL, 0), seq != 2 && seq != 4 ? 1 : -ENOENT);
	}
	snprintf(key, sizeof key, "%016llx%016llx", (unsigned long long)other + 1000, 0ULL);
	CHECK_EQ(memwatch_key_known(watcher, key), 0);
	snprintf(key, sizeof key, "%016llx%016llx", (unsigned long long)other, 2ULL);
	OK(memwatch_region_remove(watcher, other));
	CHECK_EQ(memwatch_key_known(watcher, key), 1);
	FAILS(memwatch_load(watcher, key, NULL, 0), ENOENT);
	snprintf(key, sizeof key, "%016llx%016llx", (unsigned long long)other + (1 << 24), 0ULL);
	CHECK_EQ(memwatch_key_known(watcher, key), 0); /* the slot is free, and nobody had it under this generation */
	FAILS(memwatch_key_known(watcher, "x"), EINVAL);
	memwatch_close(watcher);
}
