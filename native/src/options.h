/*
 * options.h -- the options of memwatch_open.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "base/base.h"

void options_default(struct memwatch_options *ret_options);
/* 0, or -EINVAL with a sentence. */
int options_check(const struct memwatch_options *options);

#endif
