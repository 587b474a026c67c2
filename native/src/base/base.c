/*
 * base.c -- DESIGN: small services. What they keep is the error sentence, one a thread, and the number of forks. Any
 * thread runs them; those marked Signal-safe in base.h handlers too.
 */
#define _GNU_SOURCE
#include "base.h"

#include <linux/futex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

_Atomic uint32_t fork_generation;
static _Thread_local char sentence[256]
	__attribute__((tls_model("initial-exec"))); /* nothing to allocate when memory is short */

int error_set(int error, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(sentence, sizeof sentence, format, args);
	va_end(args);
	return error;
}

const char *memwatch_error(void)
{
	return sentence;
}

const char *memwatch_version(void)
{
	return MEMWATCH_VERSION;
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t time_realtime_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

uint64_t time_monotonic_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t time_cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

void futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns)
{
	struct timespec deadline = { (time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S) };
	syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, deadline_ns ? &deadline : NULL, NULL,
		FUTEX_BITSET_MATCH_ANY);
}

void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

int thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *), void *arg)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	sigset_t others, before;
	sigfillset(&others);
	for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
		sigdelset(&others, faults[i]);
	pthread_sigmask(SIG_SETMASK, &others, &before);
	int error = pthread_create(ret_thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error)
		return error_set(-error, "cannot start the thread %s: %s", name, strerror(error));
	pthread_setname_np(*ret_thread, name);
	return 0;
}

bool span_list_reserve(struct span_list *list, size_t n)
{
	return mem_reserve(&list->spans, &list->capacity, list->n + n, sizeof *list->spans);
}

int span_list_add(struct span_list *list, uint64_t start, uint64_t end)
{
	if (list->n && list->spans[list->n - 1].end == start) {
		list->spans[list->n - 1].end = end;
		return 0;
	}
	if (!span_list_reserve(list, 1))
		return -ENOMEM;
	list->spans[list->n++] = (struct span){ start, end };
	return 0;
}

static int by_start(const void *a, const void *b)
{
	const struct span *x = a, *y = b;
	return x->start < y->start ? -1 : x->start > y->start;
}

void span_list_sort(struct span_list *list)
{
	size_t n = 0;
	if (!list->n)
		return;
	qsort(list->spans, list->n, sizeof *list->spans, by_start);
	for (size_t i = 1; i < list->n; i++) {
		if (list->spans[i].start <= list->spans[n].end)
			list->spans[n].end = max_u64(list->spans[n].end, list->spans[i].end);
		else
			list->spans[++n] = list->spans[i];
	}
	list->n = n + 1;
}

size_t span_list_after(const struct span_list *list, uint64_t address)
{
	size_t low = 0, high = list->n;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (list->spans[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool span_list_holds(const struct span_list *list, uint64_t address)
{
	size_t i = span_list_after(list, address);
	return i < list->n && list->spans[i].start <= address;
}

void span_list_fini(struct span_list *list)
{
	mem_free(list->spans);
	*list = (struct span_list){ 0 };
}

/* Bounds that print the same in both text formats: below one second, no integers. */
static const uint64_t bounds_ns[MEMWATCH_LATENCY_BUCKETS] = {
	10000, 50000, 100000, 500000, 1000000, 2500000, 5000000, 10000000, 25000000, 50000000, 100000000, 500000000,
};

double memwatch_histogram_bound(unsigned i)
{
	return i < MEMWATCH_LATENCY_BUCKETS ? (double)bounds_ns[i] / 1e9 : 0;
}

void histogram_add(struct memwatch_histogram *histogram, uint64_t duration_ns)
{
	unsigned i = 0;
	while (i < MEMWATCH_LATENCY_BUCKETS && duration_ns > bounds_ns[i])
		i++;
	histogram->buckets[i]++;
	histogram->count++;
	histogram->sum_ns += duration_ns;
}
