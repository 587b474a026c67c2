/*
 * post.h -- events that somebody else found. Under the engine's lock.
 */
#ifndef POST_H
#define POST_H

#include "engine.h"

/* An event that somebody else found, for a region without memory. 0 or -ENOMEM. */
int post_event(struct engine *engine, struct region *region, const struct memwatch_post *post, uint64_t *ret_seq);

#endif
