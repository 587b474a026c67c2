/*
 * filter.h -- the page filter in the kernel: a BPF program on the page-fault events that drops what is not ours.
 */
#ifndef FILTER_H
#define FILTER_H

#include "../base/pages.h"

/* Loads maps and program; -errno where the process may not. */
int filter_open(const struct page_set *pages);
void filter_close(void);
/* Attaches it to an event. 0 or -errno. */
int filter_attach(int perf_fd);
/* Pages of the set came or went within the span. */
void filter_update(struct span span);
/* Faults on our pages that the program let through so far. */
uint64_t filter_passed(void);

#endif
