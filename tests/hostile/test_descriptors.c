/*
 * test_descriptors.c -- what hosts do with descriptors: they count on low numbers, run out of them, and close what they
 * do not know.
 */
#include "hostile.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/stat.h>

enum { N_PAGES = 16, NUMBERS = 8192 };

static memwatch *watch_page(const char *backend, uint8_t **ret_memory, uint64_t *ret_id)
{
	memwatch *watcher = open_backend(backend);
	*ret_memory = map_pages(N_PAGES);
	*ret_id = add_region(watcher, *ret_memory, 16, "page");
	poke(*ret_memory, 1);
	flush(watcher);
	return watcher;
}

static void limit_descriptors(rlim_t n)
{
	struct rlimit limit;
	CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = n;
	CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/*
 * --- threads that wait until they are told to end
 * ---------------------------------------------------------------------
 */

static pthread_barrier_t begun;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void *wait_at_gate(void *arg)
{
	pthread_barrier_wait(&begun);
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
	return arg;
}

static void start_threads(unsigned n, pthread_t *threads)
{
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	pthread_barrier_init(&begun, NULL, n + 1);
	pthread_mutex_lock(&gate);
	for (unsigned i = 0; i < n; i++)
		CHECK(pthread_create(&threads[i], &small, wait_at_gate, NULL) == 0);
	pthread_barrier_wait(&begun);
}

static void end_threads(unsigned n, pthread_t *threads)
{
	pthread_mutex_unlock(&gate);
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

/*
 * --- low numbers ----------------------------------------------------------------------------------------------------
 */

/* One byte through the pipe is waited for by select. */
static void check_select(const int ends[2])
{
	fd_set set;
	FD_ZERO(&set);
	FD_SET(ends[0], &set);
	CHECK(write(ends[1], "x", 1) == 1);
	CHECK(select(ends[0] + 1, &set, NULL, NULL, &(struct timeval){ 5, 0 }) == 1);
}

BEHAVIOUR(selects_beside_a_thousand_threads)
{
	enum { THREADS = 1000 };
	static pthread_t threads[THREADS];
	uint8_t *memory;
	uint64_t id;
	int ends[2];
	limit_descriptors(4096);
	start_threads(THREADS, threads);
	memwatch *watcher = watch_page(backend, &memory, &id);
	CHECK(pipe(ends) == 0);
	CHECK(ends[0] < 64 && ends[1] < 64); /* the lowest number, as ever */
	check_select(ends);
	memwatch_close(watcher);
	end_threads(THREADS, threads);
}

/*
 * The usual limit, of which the threads alone would take nearly all: some have no author, and select has its numbers.
 */
BEHAVIOUR_OF(auto, selects_beside_more_threads_than_descriptors)
{
	enum { THREADS = 1000 };
	static pthread_t threads[THREADS];
	uint8_t *memory;
	uint64_t id;
	int ends[2];
	limit_descriptors(FD_SETSIZE);
	start_threads(THREADS, threads);
	memwatch *watcher = watch_page(backend, &memory, &id);
	for (int i = 0; i < FD_SETSIZE / 16; i++)
		CHECK(pipe(ends) == 0);
	check_select(ends);
	CHECK(read(ends[0], memory, 1) == 1);
	poke(memory + 8, 3);
	flush(watcher);
	const struct memwatch_event *event = last_event(watcher, id);
	CHECK(event->where.attribution == MEMWATCH_ATTRIBUTION_EXACT ||
	      event->where.reason == MEMWATCH_REASON_UNAVAILABLE || event->where.reason == MEMWATCH_REASON_POLLING);
	CHECK_EQ(stats_of(watcher).reason_by[MEMWATCH_REASON_KERNEL], 0);
	memwatch_event_unref(event);
	memwatch_close(watcher);
	end_threads(THREADS, threads);
}

/*
 * --- few numbers ----------------------------------------------------------------------------------------------------
 */

static void leave_reserve(const char *backend, rlim_t limit, unsigned n_threads)
{
	static pthread_t threads[256];
	uint8_t *memory;
	uint64_t id;
	limit_descriptors(limit);
	start_threads(n_threads, threads);
	memwatch *watcher = watch_page(backend, &memory, &id);
	unsigned n_free = 0;
	while (n_free < limit && open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0)
		n_free++;
	CHECK_OP(n_free, >=, limit / 8);
	poke(memory, 2);
	check_converged(watcher, id, memory);
	memwatch_close(watcher);
	end_threads(n_threads, threads);
}

BEHAVIOUR(has_nearly_as_many_threads_as_descriptors)
{
	leave_reserve(backend, 64, 55);
}

BEHAVIOUR(has_more_threads_than_descriptors)
{
	leave_reserve(backend, 100, 150);
}

/* Who has no event has no author, and it is not told as the kernel. */
BEHAVIOUR_OF(auto, is_not_told_as_the_kernel_beyond_the_limit)
{
	static pthread_t threads[150];
	uint8_t *memory;
	uint64_t id;
	limit_descriptors(100);
	start_threads(150, threads);
	memwatch *watcher = watch_page(backend, &memory, &id);
	CHECK(read(open("/dev/zero", O_RDONLY | O_CLOEXEC), memory, 8) == 8);
	flush(watcher);
	CHECK_EQ(stats_of(watcher).reason_by[MEMWATCH_REASON_KERNEL], 0);
	memwatch_close(watcher);
	end_threads(150, threads);
}

/*
 * --- closed by the host
 * ------------------------------------------------------------------------------------------------
 */

static bool before[NUMBERS], ours[NUMBERS];

static void find_ours(void)
{
	for (int fd = 0; fd < NUMBERS; fd++)
		ours[fd] = is_open(fd) && !before[fd];
}

/* The host's own, wherever one of the library's was. */
static void take_numbers(int host_fd)
{
	for (int fd = 3; fd < NUMBERS; fd++)
		if (ours[fd])
			CHECK(dup2(host_fd, fd) == fd);
}

static void check_numbers(int host_fd)
{
	struct stat host, now;
	CHECK(fstat(host_fd, &host) == 0);
	for (int fd = 3; fd < NUMBERS; fd++)
		if (ours[fd])
			CHECK(fstat(fd, &now) == 0 && now.st_ino == host.st_ino);
}

/* Each of the library's numbers becomes a pipe's with something to read. */
static memwatch *watch_and_take(const char *backend, int *ends)
{
	uint8_t *memory;
	uint64_t id;
	limit_descriptors(NUMBERS);
	for (int fd = 0; fd < NUMBERS; fd++)
		before[fd] = is_open(fd);
	memwatch *watcher = watch_page(backend, &memory, &id);
	find_ours();
	CHECK(pipe(ends) == 0 && write(ends[1], "0123456789", 10) == 10);
	take_numbers(ends[0]);
	for (int i = 0; i < 20; i++) {
		poke(memory, (uint8_t)(i + 2));
		flush(watcher);
	}
	check_converged(watcher, id, memory);
	return watcher;
}

static void close_and_take(const char *backend)
{
	int ends[2];
	char text[16];
	memwatch *watcher = watch_and_take(backend, ends);
	check_numbers(ends[0]);
	memwatch_close(watcher);
	check_numbers(ends[0]);
	CHECK_EQ(read(ends[0], text, sizeof text), 10);
}

BEHAVIOUR(closes_all_descriptors)
{
	close_and_take(backend);
}

BEHAVIOUR(closes_all_descriptors_without_privilege)
{
	become_nobody();
	close_and_take(backend);
}

BEHAVIOUR(closes_all_descriptors_and_forks)
{
	int ends[2], status;
	memwatch *watcher = watch_and_take(backend, ends);
	pid_t child = fork();
	if (child == 0) {
		check_numbers(ends[0]);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	check_numbers(ends[0]);
	memwatch_close(watcher);
}

/* Within a second or two the library has new ones, and tells the writer again. */
BEHAVIOUR_OF(auto, is_told_the_writer_after_closing_all)
{
	uint8_t *memory;
	uint64_t id;
	memwatch *watcher = watch_page(backend, &memory, &id);
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	uint64_t n_exact = stats_of(watcher).attribution_by[MEMWATCH_ATTRIBUTION_EXACT];
	for (int fd = 3; fd < NUMBERS; fd++)
		close(fd);
	for (uint8_t value = 2; stats_of(watcher).attribution_by[MEMWATCH_ATTRIBUTION_EXACT] == n_exact; value++) {
		poke(memory, value);
		flush(watcher);
		usleep(10000);
	}
	memwatch_close(watcher);
}
