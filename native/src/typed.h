/*
 * typed.h -- what a region's bytes are said to be: checked, and completed.
 */
#ifndef TYPED_H
#define TYPED_H

#include "base/base.h"

/* Sets item_bytes where the format tells it. 0, or -EINVAL with a sentence. */
int typed_take(struct memwatch_region_options *options, size_t size_bytes);

/* `when` and its bounds, metric, max_rate. 0, or -EINVAL with a sentence. */
int typed_check_numbers(const struct memwatch_region_options *options);

#endif
