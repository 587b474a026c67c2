/*
 * step.h -- a neighbour's write to a page that a region shares: let through one instruction long, then the page is
 * armed again.
 *
 *   who may run together    step_begin, step_end: handlers on any thread
 *                           step_contest, step_forget: under the engine's lock
 */
#ifndef STEP_H
#define STEP_H

#include "../base/backend.h"

enum { STEP_MASK_WORDS = PAGE_BYTES / 64 };

/* Makes the tables; `rearm` arms one page and is signal-safe. 0 or -ENOMEM. */
int step_open(void (*rearm)(uint64_t page));
/* Is the page in the table, or is there room for it? */
enum contest step_contested(uint64_t page);
/* The bytes [start, end) of one page, if it is in the table, are a region's, or no longer. */
void step_hold(uint64_t start, uint64_t end, bool held);
/* Neighbours of the page are to be stepped over: a bit of `mask` is set for each byte that a region holds. */
void step_contest(uint64_t page, const uint64_t mask[STEP_MASK_WORDS]);
/* The regions on these pages have changed: they are contested no more. */
void step_forget(struct span span);

/* Is the write at `address` a neighbour's that can be stepped over? Signal-safe. */
bool step_wanted(uint64_t address, const void *context);
/* Lets the instruction run and traps after it. Signal-safe. */
void step_begin(uint64_t address, void *context);
/* A trap after one instruction: true if it was ours; the page is armed again. Signal-safe. */
bool step_end(int code, void *context);

/* Pages that were open for a step: they may have been written by others meanwhile, which nothing else tells. */
extern struct page_set step_pages;
/*
 * Is a page being closed? A mark that is taken meanwhile must be put back: what is written between the look at the page
 * and its closing has no other trace.
 */
bool step_closing(void);
/* In the child of a fork: whoever was closing a page is not there. */
void step_fork_child(void);
uint64_t step_count(void);

#endif
