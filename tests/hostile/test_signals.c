/*
 * test_signals.c -- what hosts do with signals: they take them back, wait for them, jump out of them, end in them.
 */
#include "hostile.h"

#include "fault/sentinel.h"
#include "fault/trap.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/time.h>

enum { N_PAGES = 64 };

static struct memwatch_options options_of(const char *backend)
{
	struct memwatch_options options;
	memwatch_options_init(&options);
	options.backend = backend;
	options.attribution_budget = 1;
	return options;
}

static memwatch *watch_pages(const char *backend, uint8_t **ret_memory, uint64_t *ret_id)
{
	struct memwatch_options options = options_of(backend);
	memwatch *watcher = open_with(&options);
	*ret_memory = map_pages(N_PAGES);
	*ret_id = add_region(watcher, *ret_memory, (size_t)N_PAGES * PAGE, "pages");
	poke(*ret_memory, 1);
	flush(watcher);
	return watcher;
}

/* --- taken back ------------------------------------------------------------------------------------------------- */

/* A service's start code gives every signal its default action, and goes on at once. */
static void reset_all_signals(void)
{
	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
}

static void reset_and_write(const char *backend)
{
	uint8_t *memory;
	uint64_t id;
	memwatch *watcher = watch_pages(backend, &memory, &id);
	for (unsigned i = 0; i < 100; i++) {
		reset_all_signals();
		poke(memory + i % N_PAGES * PAGE, (uint8_t)(i + 2));
		if (i % 10 == 0)
			flush(watcher);
	}
	flush(watcher);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

BEHAVIOUR(resets_all_signals_and_writes)
{
	reset_and_write(backend);
}

BEHAVIOUR(resets_all_signals_and_writes_without_privilege)
{
	become_nobody();
	reset_and_write(backend);
}

/* After the host's reset the writer is told again. */
BEHAVIOUR_OF(auto, is_told_the_writer_again)
{
	uint8_t *memory;
	uint64_t id;
	memwatch *watcher = watch_pages(backend, &memory, &id);
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	reset_all_signals();
	poke(memory, 2);
	flush(watcher);
	uint64_t n_exact = stats_of(watcher).attribution_by[MEMWATCH_ATTRIBUTION_EXACT];
	for (uint8_t value = 3; stats_of(watcher).attribution_by[MEMWATCH_ATTRIBUTION_EXACT] == n_exact; value++) {
		poke(memory, value);
		flush(watcher);
		usleep(1000);
	}
	memwatch_close(watcher);
}

/* --- somebody else's ---------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t n_foreign;

static void count_foreign(int signal)
{
	(void)signal;
	n_foreign++;
}

static void install_and_write(const char *backend)
{
	uint8_t *memory;
	uint64_t id;
	memwatch *watcher = watch_pages(backend, &memory, &id);
	for (unsigned i = 0; i < 50; i++) {
		signal(SIGTRAP, count_foreign);
		signal(SIGSEGV, count_foreign);
		poke(memory + i % N_PAGES * PAGE, (uint8_t)(i + 2));
		if (i % 10 == 0)
			flush(watcher);
	}
	CHECK_EQ(n_foreign, 0);
	flush(watcher);
	check_ledgers(watcher);
	raise(SIGTRAP);
	CHECK_EQ(n_foreign, 1);
	memwatch_close(watcher);
}

BEHAVIOUR(installs_handlers_later_and_writes)
{
	install_and_write(backend);
}

BEHAVIOUR(installs_handlers_later_and_writes_without_privilege)
{
	become_nobody();
	install_and_write(backend);
}

/* --- asked about, over and over ----------------------------------------------------------------------------------- */

/* The breakpoint at sigaction takes a signal for each call: after some hundred the host is left alone, for a second. */
static void ask_over_and_over(const char *backend)
{
	uint8_t *memory;
	uint64_t id;
	struct sigaction action;
	memwatch *watcher = watch_pages(backend, &memory, &id);
	if (!sentinel_is_on())
		SKIP("there is no breakpoint at sigaction, or none is needed");
	for (int times = 0; times < 2; times++) {
		for (unsigned i = 0; i < 100000 && !trap_is_silent(); i++)
			CHECK(sigaction(SIGUSR1, NULL, &action) == 0);
		CHECK(trap_is_silent());
		poke(memory + PAGE, (uint8_t)(times + 2));
		flush(watcher);
		WAIT_FOR(!trap_is_silent());
	}
	poke(memory, 9);
	check_converged(watcher, id, memory);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

BEHAVIOUR_OF(auto, asks_for_handlers_over_and_over)
{
	become_nobody();
	ask_over_and_over(backend);
}

BEHAVIOUR_OF(mprotect, asks_for_handlers_over_and_over)
{
	ask_over_and_over(backend);
}

/* --- waited for ------------------------------------------------------------------------------------------------- */

static void *write_and_wait_for_any(void *memory)
{
	sigset_t all;
	siginfo_t info;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	for (unsigned i = 0; i < N_PAGES; i++)
		poke((uint8_t *)memory + i * PAGE, (uint8_t)(i + 2));
	if (sigtimedwait(&all, &info, &(struct timespec){ 0 }) >= 0)
		FAIL("a signal %d that nobody sent", info.si_signo);
	return NULL;
}

/* mprotect is not asked: who blocks SIGSEGV is ended by his own write, which docs/limits.md says. */
static void wait_for_any(const char *backend)
{
	uint8_t *memory;
	uint64_t id;
	pthread_t thread;
	memwatch *watcher = watch_pages(backend, &memory, &id);
	CHECK(pthread_create(&thread, NULL, write_and_wait_for_any, memory) == 0);
	pthread_join(thread, NULL);
	flush(watcher);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

BEHAVIOUR_OF(auto, waits_for_any_signal)
{
	if (geteuid() != 0)
		SKIP("the kernel cannot be asked about a thread's mask without privilege; docs/limits.md says so");
	wait_for_any(backend);
}

BEHAVIOUR_OF(poll, waits_for_any_signal)
{
	wait_for_any(backend);
}

/* --- left for good ---------------------------------------------------------------------------------------------- */

static sigjmp_buf out;

static void jump_out(int signal)
{
	(void)signal;
	siglongjmp(out, 1);
}

static void end_thread(int signal)
{
	(void)signal;
	pthread_exit(NULL);
}

/* The idiom of timeouts: a timer's handler jumps out of whatever the thread is doing. */
BEHAVIOUR(jumps_out_of_handlers)
{
	uint8_t *memory;
	uint64_t id;
	struct itimerval often = { { 0, 300 }, { 0, 300 } }, never = { { 0 }, { 0 } };
	memwatch *watcher = watch_pages(backend, &memory, &id);
	signal(SIGALRM, jump_out);
	static volatile unsigned n_jumps, i;
	if (sigsetjmp(out, 1))
		n_jumps++;
	setitimer(ITIMER_REAL, &often, NULL);
	while (n_jumps < 2000) {
		i++;
		poke(memory + i % N_PAGES * PAGE, (uint8_t)i);
	}
	setitimer(ITIMER_REAL, &never, NULL);
	signal(SIGALRM, SIG_IGN);
	flush(watcher);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

static _Atomic unsigned n_started;

static void *write_for_ever(void *memory)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	atomic_fetch_add(&n_started, 1);
	for (unsigned i = 0;; i++)
		poke((uint8_t *)memory + i % N_PAGES * PAGE, (uint8_t)i);
	return NULL;
}

static void end_writers(const char *backend, bool by_cancel)
{
	uint8_t *memory;
	uint64_t id;
	memwatch *watcher = watch_pages(backend, &memory, &id);
	signal(SIGUSR1, end_thread);
	for (unsigned i = 0; i < 300; i++) {
		pthread_t thread;
		CHECK(pthread_create(&thread, NULL, write_for_ever, memory) == 0);
		while (atomic_load(&n_started) == i)
			sched_yield();
		usleep(i % 7 * 100);
		CHECK((by_cancel ? pthread_cancel(thread) : pthread_kill(thread, SIGUSR1)) == 0);
		pthread_join(thread, NULL);
	}
	flush(watcher);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

BEHAVIOUR(cancels_its_writers)
{
	end_writers(backend, true);
}

BEHAVIOUR(ends_its_writers_by_signal)
{
	end_writers(backend, false);
}

/* Even a thread that never comes out of a handler holds close up for a moment only. */
static sigjmp_buf out_of_hook;

static uint32_t leave_for_good(void *context, unsigned depth)
{
	(void)context, (void)depth;
	siglongjmp(out_of_hook, 1);
}

static void leave_handler(const char *backend)
{
	uint8_t *memory;
	uint64_t id;
	for (volatile int i = 0; i < 2; i++) {
		memwatch *watcher = watch_pages(backend, &memory, &id);
		memwatch_frame_hook_set(leave_for_good);
		if (sigsetjmp(out_of_hook, 1) == 0)
			poke(memory + PAGE, 2);
		memwatch_frame_hook_set(NULL);
		memwatch_close(watcher);
	}
	memwatch *watcher = watch_pages(backend, &memory, &id);
	poke(memory, 9);
	check_converged(watcher, id, memory);
	memwatch_close(watcher);
}

BEHAVIOUR_OF(auto, never_comes_out_of_a_handler)
{
	leave_handler(backend);
}

BEHAVIOUR_OF(mprotect, never_comes_out_of_a_handler)
{
	leave_handler(backend);
}
