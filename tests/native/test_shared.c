/*
 * test_shared.c -- memory that others write, too; and a backend for one region.
 */
#include "watching.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static uint8_t *map_shared_pages(size_t n_pages, int fd)
{
	int flags = MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0);
	uint8_t *memory = mmap(NULL, n_pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	CHECK(memory != MAP_FAILED);
	return memory;
}

static uint8_t *map_shared(int fd)
{
	return map_shared_pages(1, fd);
}

static int anonymous_file(void)
{
	int fd = memfd_create("shared", MFD_CLOEXEC);
	CHECK(fd >= 0 && ftruncate(fd, PAGE) == 0);
	return fd;
}

static void write_in_child(volatile uint8_t *to, uint8_t value)
{
	pid_t child = fork();
	if (!child) {
		*to = value;
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

__attribute__((noinline, noclone)) static void write_here(volatile uint8_t *to, uint8_t value)
{
	*to = value;
}

static const struct memwatch_event *wait_for_event(memwatch *watcher, uint64_t seq)
{
	const struct memwatch_event *event;
	CHECK_EQ(memwatch_events_wait(watcher, seq - 1, PATIENCE_MS), 1); /* nobody flushes */
	CHECK_EQ(memwatch_events_read(watcher, seq - 1, &event, 1, NULL), 1);
	return event;
}

static void check_foreign(const struct memwatch_event *event)
{
	CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_NONE);
	CHECK_TEXT(memwatch_reason_text(event->where.reason), "foreign");
	CHECK_TEXT(event->where.symbol, "");
	CHECK_TEXT(event->backend, "poll");
}

TEST(what_another_process_writes_is_seen_and_foreign)
{
	uint8_t *memory = map_shared(-1);
	memwatch *watcher = open_backend("uffd");
	uint64_t id = add_region(watcher, memory, PAGE, "a");
	for (uint8_t i = 1; i < 6; i++) {
		write_in_child(memory + 24, i);
		const struct memwatch_event *event = wait_for_event(watcher, i);
		check_foreign(event);
		CHECK_EQ(event->new_value[24], i);
		memwatch_event_unref(event);
	}
	write_in_child(memory + 24, 9);
	flush(watcher);
	const struct memwatch_event *event = last_event(watcher, id);
	check_foreign(event);
	memwatch_event_unref(event);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(what_another_mapping_writes_is_seen_and_foreign)
{
	int fd = anonymous_file();
	uint8_t *memory = map_shared(fd), *other = map_shared(fd);
	memwatch *watcher = open_backend("uffd");
	add_region(watcher, memory, PAGE, "a");
	write_here(other + 8, 3);
	const struct memwatch_event *event = wait_for_event(watcher, 1);
	check_foreign(event);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

/* Our own writes keep their authors; another's, in the same window, are not given to them. */
TEST(an_author_has_not_written_what_others_have)
{
	uint8_t *memory = map_shared(-1);
	memwatch *watcher = open_backend("uffd");
	struct memwatch_blame blame;
	uint64_t id = add_region(watcher, memory, PAGE, "a");
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	for (uint8_t i = 1; i < 40; i++) {
		write_in_child(memory + 24, i);
		write_here(memory + 48, i);
		flush(watcher);
		CHECK_EQ(memwatch_blame(watcher, id, 24, 1, &blame, 1), 1);
		CHECK(blame.event);
		if (blame.event->where.attribution == MEMWATCH_ATTRIBUTION_EXACT)
			FAIL("%s has not written it", blame.event->where.symbol);
		memwatch_event_unref(blame.event);
	}
	write_here(memory + 48, 77);
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_EXACT);
	CHECK_TEXT(event->where.symbol, "write_here");
	CHECK_TEXT(event->backend, "uffd");
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

enum { BUSY_PAGES = 64 };

static _Atomic bool enough;

static void *write_all_the_time(void *memory)
{
	for (uint8_t value = 1; !enough; value++)
		for (size_t page = 0; page < BUSY_PAGES; page++)
			*((volatile uint8_t *)memory + page * PAGE) = value;
	return NULL;
}

/* Brings `mirror` from before the event to after it; what is listed is in order, and each byte once. */
static void apply(const struct memwatch_event *event, uint8_t *mirror)
{
	uint64_t end = 0, run[2];
	for (uint32_t i = 0; i < event->n_changes; i++) {
		CHECK(!i || event->changes[i].offset > end);
		end = event->changes[i].offset + event->changes[i].size_bytes;
		CHECK_OP(end, <=, event->size_bytes);
	}
	CHECK(event->patch);
	end = 0;
	for (uint64_t at = 0; at < event->patch_bytes; at += sizeof run + run[1]) {
		memcpy(run, event->patch + at, sizeof run);
		CHECK_OP(run[0], >=, end);
		end = run[0] + run[1];
		CHECK_EQ(memcmp(mirror + run[0], event->patch_old + at + sizeof run, run[1]), 0);
		memcpy(mirror + run[0], event->patch + at + sizeof run, run[1]);
	}
}

/* Such pages are armed and polled: what a pass finds of both is one value, told in order. */
TEST(a_shared_page_is_compared_once_in_a_pass)
{
	static uint8_t mirror[BUSY_PAGES * PAGE];
	uint8_t *memory = map_shared_pages(BUSY_PAGES, -1);
	struct memwatch_options options;
	struct memwatch_cursor cursor = { .next = 0 };
	const struct memwatch_event *event;
	pthread_t writer;
	memwatch_options_init(&options);
	options.patches = 1;
	memwatch *watcher = open_with(&options);
	add_region(watcher, memory, sizeof mirror, "a");
	CHECK_EQ(pthread_create(&writer, NULL, write_all_the_time, memory), 0);
	for (unsigned n = 0; n < 100;) {
		flush(watcher);
		for (; memwatch_events_read(watcher, cursor.next, &event, 1, &cursor) == 1; n++) {
			apply(event, mirror);
			memwatch_event_unref(event);
		}
	}
	enough = true;
	pthread_join(writer, NULL);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

static int add_with(memwatch *watcher, void *memory, const char *name, const char *backend, uint64_t *ret_id)
{
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	options.name = name;
	options.backend = backend;
	return memwatch_region_add(watcher, memory, 8, &options, ret_id);
}

TEST(a_region_may_have_a_backend_of_its_own)
{
	uint8_t *memory = map_pages(3);
	memwatch *watcher = open_backend("uffd");
	uint64_t polled, own, armed;
	OK(add_with(watcher, memory, "polled", "poll", &polled));
	OK(add_with(watcher, memory + PAGE, "own", "", &own));
	OK(add_with(watcher, memory + 64, "armed", NULL, &armed)); /* on the polled one's page */
	CHECK_TEXT(info_of(watcher, polled).backend, "poll");
	CHECK_TEXT(info_of(watcher, own).backend, "uffd");
	CHECK_TEXT(info_of(watcher, armed).backend, "uffd");
	write_here(memory, 1);
	write_here(memory + PAGE, 1);
	const struct memwatch_event *event = last_event(watcher, polled);
	CHECK_TEXT(event->backend, "poll");
	memwatch_event_unref(event);
	event = last_event(watcher, own);
	CHECK_TEXT(event->backend, "uffd");
	memwatch_event_unref(event);
	write_here(memory + 64, 1);
	event = last_event(watcher, armed);
	CHECK_TEXT(event->backend, "uffd");
	memwatch_event_unref(event);
	FAILS(add_with(watcher, memory + 2 * PAGE, "x", "slow", &own), EINVAL);
	FAILS(add_with(watcher, memory + PAGE + 64, "y", "mprotect", &own), EBUSY);
	OK(memwatch_region_remove(watcher, armed));
	write_here(memory, 2);
	event = last_event(watcher, polled);
	CHECK_EQ(event->new_value[0], 2);
	memwatch_event_unref(event);
	check_ledgers(watcher);
	memwatch_close(watcher);
}
