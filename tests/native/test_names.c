/*
 * test_names.c -- names in events: a look-up that takes long holds nobody up, and what could not be read is read later.
 * The objects are compiled here, in a directory of the test's own.
 */
#include "watching.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/memwatch-names-XXXXXX";

static void remove_directory(void)
{
	char command[100];
	snprintf(command, sizeof command, "rm -rf %s", directory);
	if (system(command))
		perror(command);
}

static void shell(const char *command)
{
	if (system(command))
		FAIL("failed: %s", command);
}

typedef void writer(volatile int *to, int value);

/* A function of an object of its own, which is compiled and loaded. */
static writer *load_writer(const char *name)
{
	char command[400], path[100];
	if (strchr(directory, 'X')) {
		CHECK(mkdtemp(directory));
		CHECK(chdir(directory) == 0);
		atexit(remove_directory);
	}
	snprintf(command, sizeof command,
		 "printf 'void %s(volatile int *to, int value) { *to = value; }\n' > %s.c && "
		 "cc -g -O1 -shared -fPIC %s.c -o %s.so",
		 name, name, name, name);
	shell(command);
	snprintf(path, sizeof path, "%s/%s.so", directory, name);
	void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	CHECK(object);
	writer *function = (writer *)(uintptr_t)dlsym(object, name);
	CHECK(function);
	return function;
}

static memwatch *open_attributed(void)
{
	memwatch *watcher = open_backend("uffd");
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	return watcher;
}

/* Whoever is named, for certain or as a hint: these tests are about the names. */
static const struct memwatch_where *writer_of(const struct memwatch_event *event)
{
	return event->where.page_writer ? event->where.page_writer : &event->where;
}

static uint64_t number_of(const uint8_t *bytes, size_t n)
{
	uint64_t number = 0;
	memcpy(&number, bytes, n);
	return number;
}

__attribute__((noinline, noclone)) static void write_here(volatile int *to, int value)
{
	*to = value;
}

/* A pipe in the object's place: whoever opens it to read its symbols waits until somebody opens it to write. */
TEST(a_slow_look_up_delays_no_pass)
{
	enum { N = 20 };
	int *memory = (int *)(void *)map_pages(1);
	const struct memwatch_event *events[N + 8];
	struct memwatch_cursor cursor;
	writer *write_slowly = load_writer("slow");
	memwatch *watcher = open_attributed();
	add_region(watcher, memory, 64, "a");
	write_here(memory, 1000); /* its name is known from here on */
	flush(watcher);
	shell("rm slow.so && mkfifo slow.so");
	write_slowly(memory, 1);
	WAIT_FOR(stats_of(watcher).ledger.delivered == 2);
	for (int i = 0; i < N; i++) {
		write_here(memory, i + 2);
		WAIT_FOR(stats_of(watcher).ledger.delivered == (uint64_t)i + 3);
	}
	/* All are events with authors of their own, in the log; none is shown before the one that waits. */
	CHECK_EQ(memwatch_events_read(watcher, 1, events, N + 8, &cursor), 0);
	CHECK_EQ(cursor.newest, 1);
	CHECK_EQ(stats_of(watcher).events_newest, 1);
	CHECK_EQ(memwatch_events_wait(watcher, 1, 20), 0);
	FAILS(memwatch_flush(watcher, 20), ETIMEDOUT);
	int fd = open("slow.so", O_WRONLY);
	CHECK(fd >= 0);
	close(fd);
	flush(watcher);
	CHECK_EQ(memwatch_events_read(watcher, 1, events, N + 8, &cursor), N + 1);
	for (int i = 0; i <= N; i++) {
		CHECK_EQ(events[i]->seq, (uint64_t)i + 2);
		/* A write while the pass before it ends is the page's writer only. */
		const struct memwatch_where *where = writer_of(events[i]);
		CHECK_EQ(number_of(events[i]->new_value, 4), (uint64_t)i + 1);
		CHECK_TEXT(where->symbol, i ? "write_here" : "");
		CHECK(strstr(where->object, i ? "test_names" : "slow.so"));
		memwatch_event_unref(events[i]);
	}
	check_ledgers(watcher);
	memwatch_close(watcher);
}

/* Nor does it hold up what asks for the history: that waits, for a while. */
TEST(history_and_blame_give_events_with_names)
{
	int *memory = (int *)(void *)map_pages(1);
	const struct memwatch_event *event;
	struct memwatch_blame blame;
	writer *write_anew = load_writer("anew");
	memwatch *watcher = open_attributed();
	uint64_t id = add_region(watcher, memory, 64, "a");
	write_anew(memory, 1);
	WAIT_FOR(stats_of(watcher).ledger.delivered == 1);
	CHECK_EQ(memwatch_history_read(watcher, id, 0, &event, 1), 1);
	CHECK_TEXT(writer_of(event)->symbol, "anew");
	memwatch_event_unref(event);
	CHECK_EQ(memwatch_blame(watcher, id, 0, 1, &blame, 1), 1);
	CHECK(blame.event);
	CHECK_TEXT(writer_of(blame.event)->symbol, "anew");
	memwatch_event_unref(blame.event);
	memwatch_close(watcher);
}

/* The limit is on numbers: what is open stays open. */
static void allow_descriptors(rlim_t n)
{
	struct rlimit limit;
	CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = n;
	CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

TEST(a_name_that_no_descriptor_was_left_for_is_found_later)
{
	int *memory = (int *)(void *)map_pages(1), value = 1;
	struct rlimit before;
	writer *write_anew = load_writer("anew");
	memwatch *watcher = open_attributed();
	uint64_t id = add_region(watcher, memory, 64, "a");
	CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
	allow_descriptors(3);
	write_anew(memory, value++);
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK(event);
	CHECK(writer_of(event)->fault_ip);
	CHECK_TEXT(writer_of(event)->symbol, "");
	memwatch_event_unref(event);
	allow_descriptors(before.rlim_cur);
	for (bool found = false; !found;) {
		usleep(20000);
		write_anew(memory, value++);
		event = last_event(watcher, id);
		found = strcmp(writer_of(event)->symbol, "anew") == 0;
		memwatch_event_unref(event);
	}
	memwatch_close(watcher);
}
