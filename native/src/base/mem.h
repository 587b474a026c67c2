/*
 * mem.h -- memory of our own: pages that hold nothing of the host's, so that what we write never opens a page that we
 * watch.
 *
 *   who may run together    everything but mem_fork_child, with everything; one short mutex; not in handlers
 */
#ifndef MEM_H
#define MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* memwatch_stats.native_memory_bytes counts all of it. mem_free and mem_unmap take NULL. */
void *mem_alloc(size_t size_bytes);              /* zeroed, 16-aligned */
void *mem_grow(void *memory, size_t size_bytes); /* as realloc; what is new is not zeroed */
/*
 * Makes room in an array that grows: for `wanted` items of `item_bytes`. `array` points to the pointer to it. False
 * without memory; then nothing has changed.
 */
bool mem_reserve(void *array, size_t *capacity, size_t wanted, size_t item_bytes);
void *mem_trim(void *memory, size_t size_bytes); /* gives back what a large block has too much; returns it */
void mem_free(void *memory);
void *mem_map(size_t size_bytes); /* zeroed whole pages, or NULL */
void mem_unmap(void *memory, size_t size_bytes);
char *mem_strdup(const char *text);
uint64_t mem_total(void);
/* The child of a fork begins anew: what other threads were doing to the free lists is not known. */
void mem_fork_child(void);

#endif
