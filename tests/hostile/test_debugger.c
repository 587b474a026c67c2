/*
 * test_debugger.c -- a debugger attaches to the host, stops and steps it, hands its signals on or keeps them, and goes
 * again, while pages are armed and threads write. The debugger is a child of the host's.
 */
#include "hostile.h"

#include <dirent.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { N_PAGES = 32, N_WRITERS = 3, THREADS_MAX = 64, VISITS = 5, STEPS = 200, STOPS = 400 };

static uint8_t *memory;
static _Atomic bool stop;

static void *write_pages(void *arg)
{
	for (unsigned i = 0; !atomic_load(&stop); i++) {
		poke(memory + i % N_PAGES * PAGE + (uintptr_t)arg, (uint8_t)i);
		if (i % N_PAGES == 0)
			usleep(100);
	}
	return NULL;
}

/* --- the debugger ------------------------------------------------------------------------------------------------ */

static int threads_of(pid_t host, pid_t *ret_threads)
{
	char path[64];
	int n = 0;
	snprintf(path, sizeof path, "/proc/%d/task", (int)host);
	DIR *directory = opendir(path);
	CHECK(directory);
	for (struct dirent *entry; n < THREADS_MAX && (entry = readdir(directory));)
		if (entry->d_name[0] != '.')
			ret_threads[n++] = (pid_t)strtol(entry->d_name, NULL, 10);
	closedir(directory);
	return n;
}

/* With which signal a stopped thread goes on. Those of the attaching and the stepping are the debugger's own. */
static int handed_on(int status, bool keeps_traps)
{
	int signal = WSTOPSIG(status);
	if (status >> 16 || signal == SIGSTOP || (signal == SIGTRAP && keeps_traps))
		return 0;
	return signal;
}

/* Lets them run for so many stops; each thread that stops goes on at once. */
static void run_on(bool keeps_traps)
{
	int status;
	for (int i = 0; i < STOPS; i++) {
		pid_t thread = waitpid(-1, &status, __WALL | WNOHANG);
		if (thread > 0 && WIFSTOPPED(status))
			ptrace(PTRACE_CONT, thread, NULL, (void *)(intptr_t)handed_on(status, keeps_traps));
		else
			usleep(200);
	}
}

static void step(pid_t thread)
{
	int status;
	for (int i = 0; i < STEPS; i++) {
		if (ptrace(PTRACE_SINGLESTEP, thread, NULL, NULL) < 0 || waitpid(thread, &status, __WALL) != thread ||
		    !WIFSTOPPED(status))
			return;
		/* A signal that comes between two steps is not the step's. */
		siginfo_t info;
		if (WSTOPSIG(status) != SIGTRAP ||
		    (ptrace(PTRACE_GETSIGINFO, thread, NULL, &info) == 0 && info.si_code != TRAP_TRACE))
			i += STEPS;
	}
}

/* All threads are stopped when this returns, and one signal of each may wait to be handed on. */
static void stop_all(const pid_t *threads, int n, int *ret_signals, bool keeps_traps)
{
	int status;
	for (int i = 0; i < n; i++) {
		ret_signals[i] = 0;
		if (ptrace(PTRACE_INTERRUPT, threads[i], NULL, NULL) < 0 ||
		    waitpid(threads[i], &status, __WALL) != threads[i])
			continue;
		ret_signals[i] = handed_on(status, keeps_traps);
	}
}

static void visit(pid_t host, bool keeps_traps)
{
	pid_t threads[THREADS_MAX];
	int signals[THREADS_MAX], n = threads_of(host, threads);
	for (int i = 0; i < n; i++)
		if (ptrace(PTRACE_SEIZE, threads[i], NULL, NULL) < 0)
			_exit(errno == EPERM ? 77 : 1);
	stop_all(threads, n, signals, keeps_traps);
	step(threads[n - 1]);
	for (int i = 0; i < n; i++)
		ptrace(PTRACE_CONT, threads[i], NULL, (void *)(intptr_t)signals[i]);
	run_on(keeps_traps);
	stop_all(threads, n, signals, keeps_traps);
	for (int i = 0; i < n; i++)
		ptrace(PTRACE_DETACH, threads[i], NULL, (void *)(intptr_t)signals[i]);
}

/* Waits for the host's word before each visit, and gives its own after it. */
static void debug(pid_t host, int in, int out, bool keeps_traps)
{
	char word;
	while (read(in, &word, 1) == 1) {
		visit(host, keeps_traps);
		if (write(out, &word, 1) != 1)
			break;
	}
	_exit(0);
}

/* --- the host --------------------------------------------------------------------------------------------------- */

static void be_debugged(const char *backend, bool keeps_traps)
{
	SKIP_UNDER(UNDER_TSAN || UNDER_ASAN); /* their own threads and handlers are traced too */
	pthread_t writers[N_WRITERS];
	int to[2], from[2], status;
	char word = 0;
	pid_t host = getpid();
	memory = map_pages(N_PAGES);
	CHECK(pipe(to) == 0 && pipe(from) == 0);
	pid_t debugger = fork();
	if (debugger == 0) {
		close(to[1]);
		debug(host, to[0], from[1], keeps_traps);
	}
	close(to[0]);
	close(from[1]);
	prctl(PR_SET_PTRACER, debugger, 0, 0, 0);
	memwatch *watcher = open_backend(backend);
	uint64_t id = add_region(watcher, memory, (size_t)N_PAGES * PAGE, "pages");
	for (uintptr_t i = 0; i < N_WRITERS; i++)
		CHECK(pthread_create(&writers[i], NULL, write_pages, (void *)(i + 1)) == 0);
	for (int i = 0; i < VISITS; i++) {
		CHECK(write(to[1], &word, 1) == 1);
		if (read(from[0], &word, 1) != 1)
			SKIP("this process may not be traced");
		flush(watcher);
	}
	close(to[1]);
	CHECK(waitpid(debugger, &status, 0) == debugger && status == 0);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < N_WRITERS; i++)
		pthread_join(writers[i], NULL);
	poke(memory, 77);
	check_converged(watcher, id, memory);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

BEHAVIOUR(has_a_debugger_come_and_go)
{
	be_debugged(backend, false);
}

/* As gdb does, which takes every SIGTRAP for its own. */
BEHAVIOUR(has_a_debugger_that_keeps_traps)
{
	be_debugged(backend, true);
}
