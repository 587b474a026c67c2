/*
 * sinks.h -- the sinks of the watcher: callbacks, iterators, recorders.
 */
#ifndef SINKS_H
#define SINKS_H

#include <memwatch/memwatch.h>

/* All that are open, however many; the caller frees the list. Their number, or -errno. */
int sinks_list(memwatch *watcher, struct memwatch_sink_info **ret_sinks);

#endif
