/*
 * watch.h -- what memwatch.c and watch.c share: handles that are checked, regions that come and go.
 */
#ifndef WATCH_H
#define WATCH_H

#include "worker/engine.h"

#include <memwatch/reader.h>

/* handle_enter, and the engine's lock; watch_unlock gives both back. */
int watch_lock(memwatch *watcher);
void watch_unlock(memwatch *watcher);

/* -EINVAL with a sentence when the pointer is NULL that a caller must give. */
int watch_need(const void *pointer, const char *name);

/* The region of that id, after watch_lock; NULL with the error and without the lock. */
struct region *watch_hold(memwatch *watcher, uint64_t id, int *ret_error);
/* The same for a region whose values may be seen. */
struct region *watch_hold_values(memwatch *watcher, uint64_t id, int *ret_error);

/*
 * Calls `fill` for up to `n` regions of a watcher from the cursor on, with an item of `item_bytes`; lets the lock go
 * now and then. Returns how many.
 */
typedef void watch_fill(const struct engine *engine, const struct region *region, void *ret_item, size_t item_bytes);
int watch_list(memwatch *watcher, uint64_t *cursor, watch_fill *fill, void *items, size_t n, size_t item_bytes);

/* Ends all regions of a watcher. Under the lock. */
void watch_remove_all(struct engine *engine, struct memwatch *watcher);

#endif
