/*
 * watching.h -- the watcher of the benchmarks.
 */
#ifndef BENCH_WATCHING_H
#define BENCH_WATCHING_H

#include "bench.h"

#include <memwatch/memwatch.h>

#define OK(call)                                                                                                       \
	do {                                                                                                           \
		if ((call) < 0) {                                                                                      \
			fprintf(stderr, "%s: %s\n", #call, memwatch_error());                                          \
			exit(1);                                                                                       \
		}                                                                                                      \
	} while (0)

static inline memwatch *open_watcher(const char *backend, double attribution_budget)
{
	struct memwatch_options options;
	memwatch *watcher;
	memwatch_options_init(&options);
	options.backend = backend;
	options.attribution_budget = attribution_budget;
	OK(memwatch_open(&options, &watcher));
	return watcher;
}

static inline uint64_t add_region(memwatch *watcher, void *address, size_t size_bytes)
{
	struct memwatch_region_options options;
	uint64_t id;
	memwatch_region_options_init(&options);
	options.flags = MEMWATCH_REGION_PINNED;
	OK(memwatch_region_add(watcher, address, size_bytes, &options, &id));
	return id;
}

#endif
