/*
 * bench.h -- what the benchmark programs share. Each prints lines of "name TAB value TAB unit" and exits with 0; run.py
 * makes the table. What must not disturb the next measurement (events, handlers) runs in a child of its own.
 */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };

static inline double now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Of this thread: what others run on the machine meanwhile does not count. */
static inline double thread_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static inline double cpu_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static inline void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static inline uint8_t *map_small_pages(size_t size_bytes)
{
	uint8_t *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	madvise(memory, size_bytes, MADV_NOHUGEPAGE);
	return memory;
}

static inline void poke(uint8_t *address, uint8_t value)
{
	*(volatile uint8_t *)address = value;
}

static inline int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static inline double median(double *values, size_t n)
{
	qsort(values, n, sizeof *values, compare_doubles);
	return values[n / 2];
}

static inline void report(const char *name, double value, const char *unit)
{
	printf("%s\t%.6g\t%s\n", name, value, unit);
	fflush(stdout);
}

/* Runs `measure` in a child; its result, or NAN when it failed. */
static inline double in_child(double (*measure)(void *), void *arg)
{
	int fds[2];
	double value = __builtin_nan("");
	fflush(NULL);
	if (pipe(fds) < 0)
		die("pipe");
	pid_t child = fork();
	if (child < 0)
		die("fork");
	if (child == 0) {
		value = measure(arg);
		_exit(write(fds[1], &value, sizeof value) != sizeof value);
	}
	close(fds[1]);
	if (read(fds[0], &value, sizeof value) != sizeof value)
		value = __builtin_nan("");
	close(fds[0]);
	waitpid(child, NULL, 0);
	return value;
}

#endif
