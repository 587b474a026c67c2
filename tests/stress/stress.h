/*
 * stress.h -- what the stress programs share: a check that stays in every build, the clock, random numbers, and what a
 * process holds now.
 */
#ifndef MEMWATCH_TESTS_STRESS_H
#define MEMWATCH_TESTS_STRESS_H

#include <memwatch/memwatch.h>

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PAGE = 4096, SKIPPED = 77 };
enum { SPARE_DESCRIPTORS = 2, SPARE_MAPPINGS = 64, SPARE_KIB = 16 << 10 };

#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			fprintf(stderr, "%s:%d: %s is false: %s (%s)\n", __FILE__, __LINE__, #condition,               \
				strerror(errno), memwatch_error());                                                    \
			fflush(stdout);                                                                                \
			abort();                                                                                       \
		}                                                                                                      \
	} while (0)

static inline double now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 20;
}

/* Opens a watcher on a backend; the program ends with SKIPPED where it cannot run. */
static inline memwatch *open_watcher(struct memwatch_options *options)
{
	memwatch *watcher;
	int error = memwatch_open(options, &watcher);
	if (error == -ENOTSUP) {
		fprintf(stderr, "%s\n", memwatch_error());
		exit(SKIPPED);
	}
	CHECK(error == 0);
	return watcher;
}

static inline void check_ledger(const struct memwatch_ledger *l)
{
	CHECK(l->detected == l->delivered + l->coalesced + l->unchanged + l->filtered + l->dropped);
}

/* What a process holds; kib is its resident memory. */
struct held {
	int descriptors, threads, mappings;
	long kib;
};

static inline int count_entries(const char *directory)
{
	int n = -2; /* . and .. */
	DIR *entries = opendir(directory);
	CHECK(entries);
	while (readdir(entries))
		n++;
	closedir(entries);
	return n;
}

/* Of the process whose directory in /proc this is. */
static inline struct held held_of(const char *process)
{
	struct held h = { 0 };
	char path[64], line[512];
	snprintf(path, sizeof path, "%s/fd", process);
	h.descriptors = count_entries(path);
	snprintf(path, sizeof path, "%s/task", process);
	h.threads = count_entries(path);
	snprintf(path, sizeof path, "%s/maps", process);
	FILE *file = fopen(path, "re");
	CHECK(file);
	while (fgets(line, sizeof line, file))
		h.mappings += strchr(line, '\n') != NULL;
	fclose(file);
	snprintf(path, sizeof path, "%s/status", process);
	file = fopen(path, "re");
	CHECK(file);
	while (fgets(line, sizeof line, file))
		sscanf(line, "VmRSS: %ld", &h.kib);
	fclose(file);
	return h;
}

static inline struct held held_now(void)
{
	return held_of("/proc/self");
}

/*
 * The sanitizers' own mappings and memory grow with what was touched, called (fake stacks) and freed (quarantine):
 * neither is judged there. What is lost for good the leak sanitizer finds at the end.
 */
static inline void check_held(const struct held *first, const struct held *last, long spare_kib)
{
	printf("descriptors %d to %d, threads %d to %d, mappings %d to %d, %ld to %ld KiB\n", first->descriptors,
	       last->descriptors, first->threads, last->threads, first->mappings, last->mappings, first->kib,
	       last->kib);
	CHECK(last->descriptors <= first->descriptors + SPARE_DESCRIPTORS);
	CHECK(last->threads <= first->threads);
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
	CHECK(last->mappings <= first->mappings + SPARE_MAPPINGS);
	CHECK(last->kib <= first->kib + spare_kib);
#else
	(void)spare_kib;
#endif
}

#endif
