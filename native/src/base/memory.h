/*
 * memory.h -- reading memory whose life nobody promises: what is gone is an error, never a fault.
 *
 *   who may run together    everything, with everything
 */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/*
 * Reads the pieces, one behind the other, to `to`; they are consumed. Returns how many bytes: fewer than there are when
 * the next one is gone or cannot be read. -errno when the kernel refuses to read for us; nothing is known of the memory
 * then.
 */
ssize_t memory_gather(void *to, struct iovec *pieces, size_t n_pieces);

/* The same for one piece that must be there as a whole: 0, -EFAULT, or -errno when the kernel refuses. */
int memory_copy(void *to, uint64_t from, size_t size_bytes);

/* What one system call reads of the bytes from there on; 0: nothing, or the kernel refuses. Signal-safe. */
size_t memory_peek(void *to, uint64_t from, size_t size_bytes);

/*
 * Does another process or another mapping see the same memory, so that it may change it? False, too, when that cannot
 * be told.
 */
bool memory_is_shared(uint64_t start, uint64_t size_bytes);

/*
 * Has a hole come into the range, or has the file behind it been cut? Looks at mappings, and at the last byte only:
 * cheap.
 */
bool memory_has_left(uint64_t start, uint64_t size_bytes);

#endif
