/*
 * filter.h -- the filter in the kernel: BPF programs on our events that let through only signals which are wanted: for
 * pages of ours, and, where the kernel lets them read it, only to threads that do not block SIGTRAP, while its handler
 * is one of ours.
 */
#ifndef FILTER_H
#define FILTER_H

#include "../base/pages.h"

/* Loads maps and programs; -errno where the process may not. The handler of SIGTRAP is installed. */
int filter_open(const struct page_set *pages);
void filter_close(void);
/* Attach to an event: for page faults, or for any other. 0 or -errno. */
int filter_attach(int perf_fd);
int filter_attach_guard(int perf_fd);
/* Does it look at the handler and the mask of the thread? */
bool filter_guards(void);
/* Pages of the set came or went within the span. */
void filter_update(struct span span);

/* What became of faults on our pages so far. */
struct filter_counts {
	uint64_t passed, blocked, seized; /* let through; the thread blocks SIGTRAP; somebody else has it */
};
struct filter_counts filter_counts(void);
/*
 * How often the program for page faults has run. The kernel leaves it out on a processor where a thread, of any
 * process, has been interrupted in the middle of a map's update.
 */
uint64_t filter_runs(void);

#endif
