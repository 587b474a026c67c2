/*
 * sample.h -- a region's number, and the listing of many.
 */
#ifndef SAMPLE_H
#define SAMPLE_H

#include "base/region.h"

/* What a numeric scalar holds whose values may be shown. Untouched when it is MEMWATCH_NUMBER_NONE. Under the engine's lock. */
enum memwatch_number sample_number(struct number number, const struct region *region,
				   union memwatch_number_value *ret_value);

#endif
