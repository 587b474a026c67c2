/*
 * poll.c -- polled memory within the default budget: what looking costs, and how late a change is told. 100 writes a
 * second, eight of ten to 16 places, the others anywhere.
 */
#include "watching.h"

#include <pthread.h>

enum { BLOCK = 16 << 10, HOT = 16, SECONDS = 12, WARM_SECONDS = 4, SLOTS = 1 << 14 };

struct late {
	double ms[SLOTS];
	size_t n;
};

static _Atomic uint64_t *written_ns; /* by block, CLOCK_REALTIME; 0: told */
static size_t n_blocks;
static _Atomic bool measuring;
static struct late hot, elsewhere; /* the callback's */

static uint64_t realtime_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool is_hot(size_t block)
{
	return block % (n_blocks / HOT) == 0;
}

static void note_event(const struct memwatch_event *event)
{
	for (uint32_t i = 0; i < event->n_changes; i++) {
		size_t block = event->changes[i].offset / BLOCK;
		uint64_t then_ns = written_ns[block];
		written_ns[block] = 0;
		struct late *late = is_hot(block) ? &hot : &elsewhere;
		if (then_ns && measuring && late->n < SLOTS)
			late->ms[late->n++] = ((double)event->detected_ns - (double)then_ns) / 1e6;
	}
}

/* The reader: its own CPU time is not the watcher's. */
static void *read_events(void *arg)
{
	memwatch *watcher = arg;
	struct memwatch_cursor cursor = { .next = 0 };
	const struct memwatch_event *events[64];
	while (memwatch_events_wait(watcher, cursor.next, -1) >= 0)
		for (int n; (n = memwatch_events_read(watcher, cursor.next, events, 64, &cursor)) > 0;)
			for (int i = 0; i < n; i++) {
				note_event(events[i]);
				memwatch_event_unref(events[i]);
			}
	return NULL;
}

static void write_for(uint8_t *memory, double seconds)
{
	static unsigned seed = 1;
	double end_ns = now_ns() + seconds * 1e9;
	while (now_ns() < end_ns) {
		usleep(10000);
		size_t block = rand_r(&seed) % 10 < 8 ? (size_t)rand_r(&seed) % HOT * (n_blocks / HOT)
						      : (size_t)rand_r(&seed) % n_blocks;
		if (!written_ns[block])
			written_ns[block] = realtime_ns();
		memory[block * BLOCK + (size_t)rand_r(&seed) % BLOCK]++;
	}
}

static void report_late(const char *size, const char *where, struct late *late)
{
	char name[64];
	if (!late->n)
		return;
	qsort(late->ms, late->n, sizeof *late->ms, compare_doubles);
	snprintf(name, sizeof name, "%s.%s.median", size, where);
	report(name, late->ms[late->n / 2], "ms");
	snprintf(name, sizeof name, "%s.%s.95_percent", size, where);
	report(name, late->ms[late->n * 95 / 100], "ms");
	snprintf(name, sizeof name, "%s.%s.worst", size, where);
	report(name, late->ms[late->n - 1], "ms");
	late->n = 0;
}

static double clock_of(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* What the watcher's threads used since the last call, in % of a core. */
static double share_used(clockid_t reader)
{
	static double used_before, wall_before;
	double used = cpu_ns() - thread_ns() - clock_of(reader), wall = now_ns();
	double share = (used - used_before) / (wall - wall_before) * 100;
	used_before = used;
	wall_before = wall;
	return share;
}

static void report_share(const char *size, const char *what, double share)
{
	char name[64];
	snprintf(name, sizeof name, "%s.%s", size, what);
	report(name, share, "% of a core");
}

static void measure(const char *size, size_t size_bytes)
{
	pthread_t thread;
	clockid_t reader;
	uint8_t *memory = map_small_pages(size_bytes);
	memset(memory, 1, size_bytes);
	n_blocks = size_bytes / BLOCK;
	written_ns = calloc(n_blocks, sizeof *written_ns);
	memwatch *watcher = open_watcher("poll", 0.01);
	add_region(watcher, memory, size_bytes);
	OK(pthread_create(&thread, NULL, read_events, watcher));
	OK(pthread_getcpuclockid(thread, &reader));
	usleep(3 * 1000 * 1000);
	share_used(reader);
	usleep(5 * 1000 * 1000);
	report_share(size, "at_rest", share_used(reader));
	write_for(memory, WARM_SECONDS);
	measuring = true;
	share_used(reader);
	write_for(memory, SECONDS);
	report_share(size, "written", share_used(reader));
	measuring = false;
	memwatch_close(watcher);
	pthread_join(thread, NULL);
	report_late(size, "hot", &hot);
	report_late(size, "elsewhere", &elsewhere);
	free(written_ns);
	munmap(memory, size_bytes);
}

int main(void)
{
	measure("1_MiB", (size_t)1 << 20);
	measure("64_MiB", (size_t)64 << 20);
	return 0;
}
