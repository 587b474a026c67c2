/*
 * when.h -- a region's condition: is a change worth an event? The worker's, without any interpreter.
 */
#ifndef WHEN_H
#define WHEN_H

#include "../base/region.h"
#include "diff.h"

/* Judges the changed elements of a numeric region, with their old values from the diff's undo. */
bool when_holds(struct number number, const struct region *region, const struct diff *diff);

#endif
