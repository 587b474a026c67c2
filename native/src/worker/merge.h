/*
 * merge.h -- an event that tells several changes of a region: what max_rate has held back, and what came since.
 */
#ifndef MERGE_H
#define MERGE_H

#include "../base/event.h"
#include "diff.h"

/*
 * Adds the ranges of `earlier` to those of `event`. How many bytes are in one or the other is known when both list all
 * of theirs; else it is as many as the larger one has, at least.
 */
void merge_ranges(struct event *event, const struct memwatch_event *earlier);

/*
 * Makes `event`, which has room for MEMWATCH_CHANGES_MAX ranges, tell what `earlier` told, too: from its old value
 * to the new one. Where both are whole, the ranges are their difference, and may be none; `before` has room for
 * the value, `diff` is free to use. Else they are those of both. The author of several changes is a hint.
 */
void merge_event(struct event *event, const struct memwatch_event *earlier, struct diff *diff, uint8_t *before);

#endif
