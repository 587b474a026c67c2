/*
 * lifetime.h -- the one engine of the process: made with the first watcher, gone with the last.
 */
#ifndef LIFETIME_H
#define LIFETIME_H

#include "backends.h"

/*
 * Joins the engine, or makes it, with the backend that `options` ask for; the watcher's slot and backend are set.
 * -EBUSY, -ENOTSUP, -ENOMEM with a sentence.
 */
int lifetime_join(const struct memwatch_options *options, struct memwatch *watcher);
/* Leaves it; the last one ends it. The watcher has no regions any more. */
void lifetime_leave(struct memwatch *watcher);

/* Probes all backends, with or without an engine; what it found. */
void lifetime_probe(struct backend_notes *ret_notes);

#endif
