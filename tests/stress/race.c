/*
 * race.c -- everything at once, in random order: threads watch, unwatch, write, fork, flush, scrape, read,
 * unmap, open and close, on watchers that they share. `race SECONDS BACKEND`: for so many seconds (10) on that
 * backend (auto).
 *
 * What a user may not do is kept apart by a lock for each watcher: it is closed by whoever holds it alone. All
 * else may meet all else. In the end nothing may be left behind (descriptors, mappings, threads), the ledger
 * balances, and what was watched is what memory holds. 77 when the backend cannot run here.
 */
#include "stress.h"

#include <memwatch/exporter.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { N_PAGES = 64, N_WATCHERS = 3, N_THREADS = 6, N_IDS = 16, CHILD_LIMIT_S = 60 };

/* A watcher that all threads use: with `lock` shared for any call, alone to close and open it again. */
struct slot {
	pthread_rwlock_t lock;
	memwatch *watcher;
	memwatch_exporter *exporter;
	_Atomic uint64_t ids[N_IDS];
};

struct actor {
	pthread_t thread;
	uint64_t random;
	uint8_t *own; /* a mapping that comes and goes */
};

static uint8_t *memory;
static const char *backend = "auto";
static struct slot slots[N_WATCHERS];
static _Atomic bool stop;

static uint64_t next(struct actor *a, uint64_t below)
{
	return next_random(&a->random) % below;
}

static void open_slot(struct slot *s)
{
	struct memwatch_options options;
	struct memwatch_exporter_options served;
	memwatch_options_init(&options);
	memwatch_exporter_options_init(&served);
	options.backend = backend;
	options.event_budget = options.history_budget = 1 << 20;
#ifdef __SANITIZE_THREAD__ /* its run-time dies of a trap that meets it at the end of a thread */
	options.attribution_budget = 0;
#endif
	served.port = 0;
	served.runtime_dir = "";
	s->watcher = open_watcher(&options);
	CHECK(memwatch_exporter_open(s->watcher, &served, &s->exporter) == 0);
	for (int i = 0; i < N_IDS; i++)
		atomic_store(&s->ids[i], 0);
}

static void close_slot(struct slot *s)
{
	memwatch_exporter_close(s->exporter);
	memwatch_close(s->watcher);
}

/* --- what threads do --- */

static void watch(struct slot *s, struct actor *a)
{
	uint64_t id, offset = next(a, (N_PAGES - 3) * PAGE), size_bytes = 1 + next(a, next(a, 2) ? 16 : 2 * PAGE);
	CHECK(memwatch_region_add(s->watcher, memory + offset, size_bytes, NULL, &id) == 0);
	uint64_t old = atomic_exchange(&s->ids[next(a, N_IDS)], id);
	if (old)
		CHECK(memwatch_region_remove(s->watcher, old) == 0);
}

static void unwatch(struct slot *s, struct actor *a)
{
	uint64_t id = atomic_exchange(&s->ids[next(a, N_IDS)], 0);
	if (id)
		CHECK(memwatch_region_remove(s->watcher, id) == 0);
}

static void write_words(struct slot *s, struct actor *a)
{
	(void)s;
	for (int i = 0; i < 100; i++)
		__atomic_store_n((uint64_t *)(void *)memory + next(a, N_PAGES * PAGE / 8), a->random, __ATOMIC_RELAXED);
}

static void fork_child(struct slot *s, struct actor *a)
{
	int status;
	(void)a;
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		alarm(CHILD_LIMIT_S);
		for (int i = 0; i < N_PAGES; i++)
			__atomic_store_n(memory + i * PAGE, 1, __ATOMIC_RELAXED);
		_exit(memwatch_flush(s->watcher, 0) == -ECHILD ? 0 : 1);
	}
	CHECK(waitpid(child, &status, 0) == child);
	if (status != 0)
		fprintf(stderr, "a child ended with %s %d\n", WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	CHECK(status == 0);
}

static void flush(struct slot *s, struct actor *a)
{
	(void)a;
	int error = memwatch_flush(s->watcher, 30000);
	CHECK(error == 0);
}

static void scrape(struct slot *s, struct actor *a)
{
	uint16_t port = memwatch_exporter_port(s->exporter);
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	char request[128], answer[4096];
	ssize_t n;
	size_t whole = 0;
	(void)a;
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
	int length = snprintf(request, sizeof request,
			      "GET /metrics HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n", port);
	CHECK(write(fd, request, (size_t)length) == length);
	while ((n = read(fd, answer, sizeof answer)) > 0) {
		CHECK(whole > 0 || memcmp(answer, "HTTP/1.1 200", 12) == 0);
		whole += (size_t)n;
	}
	CHECK(n == 0 && whole > sizeof answer);
	close(fd);
}

static void read_events(struct slot *s, struct actor *a)
{
	const struct memwatch_event *events[32];
	struct memwatch_cursor cursor;
	uint8_t bytes[256];
	(void)a;
	int n = memwatch_events_read(s->watcher, 0, events, 32, &cursor);
	CHECK(n >= 0);
	for (int i = 0; i < n; i++) {
		memwatch_version_read(s->watcher, events[i]->region_id, events[i]->seq, bytes, sizeof bytes);
		memwatch_event_unref(events[i]);
	}
}

static void count_event(const struct memwatch_event *event, void *arg)
{
	atomic_fetch_add((_Atomic uint64_t *)arg, event->changed_bytes);
}

static void set_callback(struct slot *s, struct actor *a)
{
	static _Atomic uint64_t n_bytes;
	CHECK(memwatch_callback_set(s->watcher, next(a, 2) ? count_event : NULL, &n_bytes) == 0);
}

static void lose_memory(struct slot *s, struct actor *a)
{
	uint64_t id;
	if (!a->own) {
		a->own = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(a->own != MAP_FAILED);
		a->own[0] = 1;
		CHECK(memwatch_region_add(s->watcher, a->own, 4 * PAGE, NULL, &id) == 0);
		a->own[PAGE] = 1;
		return;
	}
	CHECK(munmap(a->own, 4 * PAGE) == 0);
	a->own = NULL;
}

static void reopen(struct slot *s, struct actor *a)
{
	(void)a;
	pthread_rwlock_unlock(&s->lock);
	pthread_rwlock_wrlock(&s->lock);
	close_slot(s);
	open_slot(s);
}

/* An act and how often it is chosen. */
static const struct act {
	void (*do_it)(struct slot *s, struct actor *a);
	unsigned share;
	const char *name;
} acts[] = {
	{ watch, 20, "watch" },     { unwatch, 10, "unwatch" },      { write_words, 40, "write" },
	{ fork_child, 2, "fork" },  { flush, 5, "flush" },           { scrape, 5, "scrape" },
	{ read_events, 8, "read" }, { set_callback, 4, "callback" }, { lose_memory, 4, "vanish" },
	{ reopen, 2, "reopen" },
};
enum { N_ACTS = sizeof acts / sizeof *acts, SHARES = 100 };
static _Atomic uint64_t n_done[N_ACTS];

static void *act(void *arg)
{
	struct actor *a = arg;
	while (!atomic_load(&stop)) {
		struct slot *s = &slots[next(a, N_WATCHERS)];
		uint64_t chosen = next(a, SHARES), i = 0;
		while (chosen >= acts[i].share)
			chosen -= acts[i++].share;
		pthread_rwlock_rdlock(&s->lock);
		acts[i].do_it(s, a);
		pthread_rwlock_unlock(&s->lock);
		atomic_fetch_add(&n_done[i], 1);
	}
	return NULL;
}

/* --- what is left --- */

/* Writers rest: a region over all memory holds what memory holds, and every account balances. */
static void check_rest(struct slot *s)
{
	static uint8_t known[N_PAGES * PAGE];
	struct memwatch_stats stats;
	uint64_t id;
	CHECK(memwatch_region_add(s->watcher, memory, sizeof known, NULL, &id) == 0);
	memory[0]++;
	CHECK(memwatch_flush(s->watcher, 60000) == 0);
	CHECK(memwatch_region_read(s->watcher, id, known, sizeof known) == sizeof known);
	CHECK(memcmp(known, memory, sizeof known) == 0);
	CHECK(memwatch_stats_get(s->watcher, &stats) == 0);
	check_ledger(&stats.ledger);
}

static void run(double seconds, uint64_t seed)
{
	struct actor actors[N_THREADS];
	for (int i = 0; i < N_THREADS; i++) {
		actors[i] = (struct actor){ .random = seed + (uint64_t)i };
		CHECK(pthread_create(&actors[i].thread, NULL, act, &actors[i]) == 0);
	}
	struct timespec whole = { .tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (long)seconds) * 1e9) };
	nanosleep(&whole, NULL);
	atomic_store(&stop, true);
	for (int i = 0; i < N_THREADS; i++) {
		pthread_join(actors[i].thread, NULL);
		if (actors[i].own)
			munmap(actors[i].own, 4 * PAGE);
	}
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 10;
	backend = argc > 2 ? argv[2] : backend;
	uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : (uint64_t)time(NULL);
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	memory = mmap(NULL, N_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	open_slot(&slots[0]); /* what the first one leaves for good is no leak: tables, libdw */
	close_slot(&slots[0]);
	struct held first = held_now();
	for (int i = 0; i < N_WATCHERS; i++) {
		pthread_rwlock_init(&slots[i].lock, NULL);
		open_slot(&slots[i]);
	}
	run(seconds, seed);
	for (int i = 0; i < N_WATCHERS; i++)
		check_rest(&slots[i]);
	for (int i = 0; i < N_WATCHERS; i++)
		close_slot(&slots[i]);
	for (int i = 0; i < N_ACTS; i++)
		printf("%s %llu%s", acts[i].name, (unsigned long long)n_done[i], i + 1 < N_ACTS ? ", " : "\n");
	struct held last = held_now();
	check_held(&first, &last, SPARE_KIB);
	return 0;
}
