/*
 * daemon.c -- a daemon of the old kind that watches itself: it opens its watcher as root and drops its rights then, has
 * left its parent by daemon() and closed what it inherited, takes its signals from a signalfd with all others blocked,
 * loads its configuration again on SIGHUP, and serves with 32 threads while watches come and go. `daemon SECONDS` (10).
 *
 * Its parent here, which got it back as a subreaper does, sends the signals and looks from outside at what it holds: in
 * the end as many descriptors and threads as after a third of the time, and no more memory. The daemon itself looks at
 * every event: no other function than the one that writes a variable may be named, its number only grows, and in the
 * end what is known of it is what it holds.
 */
#define _GNU_SOURCE
#include "stress.h"

#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 32, WORKERS_A_PAGE = 4, VISITORS = 8, NOBODY = 65534, LIMIT_S = 60 };

/* What the daemon tells its parent. */
struct shared {
	_Atomic pid_t pid;
	_Atomic uint64_t n_events, n_exact, n_reloads, n_visits;
	int attribution;
};

struct slot {
	_Alignas(PAGE / WORKERS_A_PAGE) uint64_t n_served;
};

static struct shared *shared;
static struct slot slots[WORKERS];
static _Alignas(PAGE) uint64_t generation;
static uint64_t ids[WORKERS], visitors[VISITORS], known[WORKERS + 1];
static _Atomic bool stop;

/* --- who writes: global, so that the program that was stripped of its file's rights has names for them --- */

void serve(struct slot *slot);
void load_configuration(void);

__attribute__((noinline)) void serve(struct slot *slot)
{
	__atomic_store_n(&slot->n_served, slot->n_served + 1, __ATOMIC_RELAXED);
}

__attribute__((noinline)) void load_configuration(void)
{
	__atomic_store_n(&generation, generation + 1, __ATOMIC_RELAXED);
}

static void *work(void *arg)
{
	uint64_t state = (uintptr_t)arg;
	while (!atomic_load(&stop)) {
		serve(arg);
		usleep((useconds_t)(1000 + next_random(&state) % 4000));
	}
	return NULL;
}

/* --- what is told --- */

static void on_event(const struct memwatch_event *event, void *arg)
{
	bool is_configuration = strcmp(event->name, "generation") == 0;
	unsigned worker = is_configuration ? WORKERS : (unsigned)strtoul(event->name + sizeof "worker", NULL, 10);
	uint64_t before, now;
	(void)arg;
	atomic_fetch_add(&shared->n_events, 1);
	CHECK(event->kind == MEMWATCH_EVENT_CHANGE);
	memcpy(&before, event->old_value, sizeof before);
	memcpy(&now, event->new_value, sizeof now);
	CHECK(now > before);
	if (event->where.attribution == MEMWATCH_ATTRIBUTION_EXACT) {
		atomic_fetch_add(&shared->n_exact, 1);
		if (*event->where.symbol)
			CHECK(strcmp(event->where.symbol, is_configuration ? "load_configuration" : "serve") == 0);
	}
	if (strncmp(event->name, "visit", 5) == 0)
		return;
	CHECK(before >= known[worker]);
	known[worker] = now;
}

static uint64_t watch(memwatch *watcher, const char *kind, unsigned number, uint64_t *variable)
{
	struct memwatch_region_options options;
	char name[32];
	uint64_t id;
	snprintf(name, sizeof name, "%s-%u", kind, number);
	memwatch_region_options_init(&options);
	options.name = number < WORKERS ? name : kind;
	options.format = "Q";
	CHECK(memwatch_region_add(watcher, variable, sizeof *variable, &options, &id) == 0);
	return id;
}

/* A watch more, or one less: of variables that are watched by another name, too. */
static void come_or_go(memwatch *watcher, uint64_t *state)
{
	unsigned i = (unsigned)(next_random(state) % VISITORS);
	if (visitors[i])
		CHECK(memwatch_region_remove(watcher, visitors[i]) == 0);
	visitors[i] = visitors[i] ? 0 : watch(watcher, "visit", i, &slots[next_random(state) % WORKERS].n_served);
	atomic_fetch_add(&shared->n_visits, 1);
}

/* --- the daemon --- */

static memwatch *open_small(void)
{
	struct memwatch_options options;
	struct memwatch_stats stats;
	memwatch_options_init(&options);
	options.event_capacity = 1024; /* full soon: what grows then is not meant to */
	options.event_budget = options.history_budget = 1 << 20;
	memwatch *watcher = open_watcher(&options);
	CHECK(memwatch_stats_get(watcher, &stats) == 0);
	shared->attribution = stats.attribution_available;
	CHECK(memwatch_callback_set(watcher, on_event, NULL) == 0);
	return watcher;
}

static void drop_rights(void)
{
	if (geteuid() == 0)
		CHECK(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

/* Signals are read, never caught; SIGTRAP stays open, which is memwatch's. */
static int open_signals(void)
{
	sigset_t blocked, wanted;
	sigfillset(&blocked);
	sigdelset(&blocked, SIGTRAP);
	CHECK(pthread_sigmask(SIG_SETMASK, &blocked, NULL) == 0);
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGHUP);
	sigaddset(&wanted, SIGTERM);
	return signalfd(-1, &wanted, SFD_CLOEXEC);
}

/* Until SIGTERM. */
static void attend(memwatch *watcher, int signals)
{
	struct pollfd ready = { .fd = signals, .events = POLLIN };
	struct signalfd_siginfo info = { 0 };
	uint64_t state = 1;
	while (info.ssi_signo != SIGTERM) {
		come_or_go(watcher, &state);
		info.ssi_signo = 0;
		if (poll(&ready, 1, 5) == 1)
			CHECK(read(signals, &info, sizeof info) == sizeof info);
		if (info.ssi_signo == SIGHUP) {
			load_configuration();
			atomic_fetch_add(&shared->n_reloads, 1);
		}
	}
}

static void check_end(memwatch *watcher)
{
	struct memwatch_stats stats;
	uint64_t last;
	CHECK(memwatch_flush(watcher, LIMIT_S * 1000) == 0);
	for (int i = 0; i < WORKERS; i++) {
		CHECK(memwatch_region_read(watcher, ids[i], &last, sizeof last) == sizeof last);
		CHECK(last == slots[i].n_served);
	}
	CHECK(memwatch_stats_get(watcher, &stats) == 0);
	check_ledger(&stats.ledger);
}

static int run(void)
{
	pthread_t threads[WORKERS];
	CHECK(daemon(0, 1) == 0); /* its messages still go where ours do */
	CHECK(close_range(3, ~0U, 0) == 0);
	int signals = open_signals();
	memwatch *watcher = open_small();
	drop_rights();
	watch(watcher, "generation", WORKERS, &generation);
	for (unsigned i = 0; i < WORKERS; i++)
		ids[i] = watch(watcher, "worker", i, &slots[i].n_served);
	for (int i = 0; i < WORKERS; i++)
		CHECK(pthread_create(&threads[i], NULL, work, &slots[i]) == 0);
	atomic_store(&shared->pid, getpid());
	attend(watcher, signals);
	atomic_store(&stop, true);
	for (int i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	check_end(watcher);
	CHECK(memwatch_close(watcher) == 0);
	return 0;
}

/* --- its parent --- */

static void wait_for_events(uint64_t n_events)
{
	double end = now_s() + LIMIT_S;
	int status;
	while (atomic_load(&shared->n_events) < n_events) {
		if (waitpid(-1, &status, WNOHANG) > 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
			exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
		CHECK(now_s() < end);
		usleep(10000);
	}
}

static void send_reloads(pid_t pid, double until)
{
	while (now_s() < until) {
		CHECK(kill(pid, SIGHUP) == 0);
		usleep(20000);
	}
}

static void end_daemon(pid_t pid)
{
	double end = now_s() + LIMIT_S;
	int status;
	CHECK(kill(pid, SIGTERM) == 0);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		CHECK(now_s() < end);
		usleep(10000);
	}
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 10, start = now_s();
	char process[32];
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
	if (fork() == 0)
		return run();
	wait_for_events(2 * WORKERS);
	pid_t pid = atomic_load(&shared->pid);
	snprintf(process, sizeof process, "/proc/%d", (int)pid);
	send_reloads(pid, start + seconds / 3);
	struct held first = held_of(process);
	send_reloads(pid, start + seconds);
	struct held last = held_of(process);
	end_daemon(pid);
	printf("%llu events, %llu exact, %llu reloads, %llu watches came or went\n",
	       (unsigned long long)shared->n_events, (unsigned long long)shared->n_exact,
	       (unsigned long long)shared->n_reloads, (unsigned long long)shared->n_visits);
	check_held(&first, &last, SPARE_KIB);
	CHECK(shared->n_reloads > 0 && shared->n_visits > 0);
	CHECK(shared->n_exact > 0 || !shared->attribution);
	return 0;
}
