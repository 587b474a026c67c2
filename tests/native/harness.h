/*
 * harness.h -- a small runner: each TEST runs in a process of its own, in a process group of its own, under a limit.
 *
 *   TEST(name) { CHECK(...); }                 ends well by returning
 *   TEST_DIES(name, SIGSEGV) { ... }           ends well by dying of that signal
 *   SKIP("why")                                ends the test, neither good nor bad
 *
 *   program                 runs all tests, prints "ok NAME", "skip NAME: why" or "FAIL NAME: how it ended"; exits 0, 1
 *   program NAME...         runs these
 *   program --list          prints the names
 *
 * MEMWATCH_TEST_LIMIT_S is the limit for one test (60 seconds): past it the whole process group is killed.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HARNESS_SKIP = 77 };

#ifdef __SANITIZE_THREAD__
enum { UNDER_TSAN = 1, UNDER_ASAN = 0 };
#elif defined(__SANITIZE_ADDRESS__)
enum { UNDER_TSAN = 0, UNDER_ASAN = 1 };
#else
enum { UNDER_TSAN = 0, UNDER_ASAN = 0 };
#endif

#ifdef MEMWATCH_UBSAN
enum { UNDER_UBSAN = 1 };
#else
enum { UNDER_UBSAN = 0 };
#endif

struct test {
	const char *name;
	void (*run)(void);
	int signal; /* that it must die of, 0: none */
	struct test *next;
};

static struct test *harness_tests, **harness_end = &harness_tests;

#define HARNESS_TEST(test_name, test_signal)                                                                           \
	static void test_name(void);                                                                                   \
	static struct test harness_##test_name = { #test_name, test_name, test_signal, NULL };                         \
	__attribute__((constructor)) static void harness_add_##test_name(void)                                         \
	{                                                                                                              \
		*harness_end = &harness_##test_name;                                                                   \
		harness_end = &harness_##test_name.next;                                                               \
	}                                                                                                              \
	static void test_name(void)

#define TEST(name) HARNESS_TEST(name, 0)
#define TEST_DIES(name, signal) HARNESS_TEST(name, signal)

/* Ends the test without unwinding: a failed check may leave anything behind. */
#define FAIL(...)                                                                                                      \
	do {                                                                                                           \
		fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                                        \
		fprintf(stderr, __VA_ARGS__);                                                                          \
		fputc('\n', stderr);                                                                                   \
		fflush(NULL);                                                                                          \
		_exit(1);                                                                                              \
	} while (0)

#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			FAIL("%s is false", #condition);                                                               \
	} while (0)

#define CHECK_OP(a, op, b)                                                                                             \
	do {                                                                                                           \
		long long check_a = (long long)(a), check_b = (long long)(b);                                          \
		if (!(check_a op check_b))                                                                             \
			FAIL("%s %s %s is false: %lld, %lld", #a, #op, #b, check_a, check_b);                          \
	} while (0)

#define CHECK_EQ(a, b) CHECK_OP(a, ==, b)

#define CHECK_TEXT(a, b)                                                                                               \
	do {                                                                                                           \
		const char *check_a = (a), *check_b = (b);                                                             \
		if (strcmp(check_a, check_b) != 0)                                                                     \
			FAIL("%s is \"%s\", not \"%s\"", #a, check_a, check_b);                                        \
	} while (0)

/* Waits for something that must come; never longer than the test's own limit allows. */
#define WAIT_FOR(condition)                                                                                            \
	do {                                                                                                           \
		double wait_end = harness_now_s() + harness_limit_s() / 2;                                             \
		while (!(condition)) {                                                                                 \
			if (harness_now_s() > wait_end)                                                                \
				FAIL("%s did not become true", #condition);                                            \
			usleep(1000);                                                                                  \
		}                                                                                                      \
	} while (0)

/* For what a sanitizer itself does differently: that of threads delays signals and turns vfork into fork; both map
 * memory of their own. */
#define SKIP_UNDER(sanitizer)                                                                                          \
	do {                                                                                                           \
		if (sanitizer)                                                                                         \
			SKIP("the sanitizer changes this");                                                            \
	} while (0)

#define SKIP(why)                                                                                                      \
	do {                                                                                                           \
		fprintf(stderr, "%s\n", why);                                                                          \
		fflush(NULL);                                                                                          \
		_exit(HARNESS_SKIP);                                                                                   \
	} while (0)

/* Under a sanitizer signals must reach the tested handlers as they do without. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);
__attribute__((used, visibility("default"))) const char *__asan_default_options(void)
{
	return "handle_segv=0:handle_sigbus=0:handle_abort=0:handle_sigfpe=0:handle_sigill=0:allow_user_segv_handler=1";
}
__attribute__((used, visibility("default"))) const char *__tsan_default_options(void)
{
	return "handle_segv=0:handle_sigbus=0:handle_abort=0:die_after_fork=0:allow_user_segv_handler=1:"
	       "halt_on_error=1";
}

static inline double harness_now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The same numbers in every run of a test. */
static inline uint64_t harness_random(void)
{
	static uint64_t state = 88172645463325252u; /* xorshift64 */
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static inline double harness_limit_s(void)
{
	const char *text = getenv("MEMWATCH_TEST_LIMIT_S");
	double limit = text ? atof(text) : 0;
	return limit > 0 ? limit : 60;
}

static inline pid_t harness_start(const struct test *test)
{
	fflush(NULL);
	pid_t child = fork();
	if (child)
		return child;
	struct rlimit no_core = { 0, 0 };
	sigset_t none;
	setpgid(0, 0);
	setrlimit(RLIMIT_CORE, &no_core);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	test->run();
	exit(0);
}

/* Waits for the child; false when the limit was reached and it was killed. */
static inline bool harness_wait(pid_t child, int *ret_status)
{
	struct timespec step = { .tv_nsec = 100 * 1000 * 1000 };
	double end = harness_now_s() + harness_limit_s();
	bool in_time = true;
	sigset_t on_child;
	sigemptyset(&on_child);
	sigaddset(&on_child, SIGCHLD);
	while (waitpid(child, ret_status, WNOHANG) == 0) {
		if (harness_now_s() >= end) {
			in_time = false;
			kill(-child, SIGKILL);
			waitpid(child, ret_status, 0);
			break;
		}
		sigtimedwait(&on_child, NULL, &step);
	}
	kill(-child, SIGKILL); /* whom it left behind */
	return in_time;
}

/* Runs one test in a process of its own; false when it failed. */
static inline bool harness_run(const struct test *test)
{
	int status = 0;
	bool in_time = harness_wait(harness_start(test), &status);
	if (!in_time)
		printf("FAIL %s: still running after %g s\n", test->name, harness_limit_s());
	else if (WIFSIGNALED(status) && WTERMSIG(status) != test->signal)
		printf("FAIL %s: died of signal %d (%s)\n", test->name, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WIFEXITED(status) && WEXITSTATUS(status) == HARNESS_SKIP)
		printf("skip %s\n", test->name);
	else if (WIFEXITED(status) && test->signal)
		printf("FAIL %s: exited with %d, should have died of signal %d\n", test->name, WEXITSTATUS(status),
		       test->signal);
	else if (WIFEXITED(status) && WEXITSTATUS(status))
		printf("FAIL %s: exited with %d\n", test->name, WEXITSTATUS(status));
	else
		return printf("ok %s\n", test->name), true;
	return in_time && WIFEXITED(status) && WEXITSTATUS(status) == HARNESS_SKIP;
}

static inline bool harness_selected(const struct test *test, int n, char **names)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], test->name) == 0)
			return true;
	return n == 0;
}

int main(int argc, char **argv)
{
	bool list = argc == 2 && strcmp(argv[1], "--list") == 0;
	int n_run = 0, n_failed = 0;
	sigset_t on_child;
	sigemptyset(&on_child);
	sigaddset(&on_child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &on_child, NULL);
	for (const struct test *test = harness_tests; test; test = test->next) {
		if (list)
			puts(test->name);
		else if (harness_selected(test, argc - 1, argv + 1)) {
			n_run++;
			n_failed += !harness_run(test);
		}
	}
	if (!list && argc > 1 && n_run != argc - 1) {
		fprintf(stderr, "no such test\n");
		return 1;
	}
	return n_failed > 0;
}

#endif
