/*
 * reader.h -- for programs that pass on what a watcher sees, as the exporter does: reading many regions often, waits
 * that can be broken off, keys that strangers give. A program that watches its own variables needs memwatch.h alone.
 * Errors and threads as there.
 */
#ifndef MEMWATCH_READER_H
#define MEMWATCH_READER_H

#include <memwatch/memwatch.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * For functions that take structures of programs which may be older or newer, see types.h. Reads what a program gave
 * over the defaults in `ours`: the members that both have. -EINVAL: it is the size of no structure; -E2BIG: members
 * that we do not have are not 0.
 */
MEMWATCH_API int memwatch_struct_read(void *ours, size_t our_bytes, const void *given, size_t given_bytes);

/* Writes what a program has room for; what we do not have becomes 0. */
MEMWATCH_API void memwatch_struct_write(void *theirs, size_t their_bytes, const void *ours, size_t our_bytes);

/* What changes of a region while it is watched; the members are those of struct memwatch_region_info and its ledger. */
struct memwatch_region_sample {
	uint64_t id, delivered, last_seq, last_time_ns;
	int metric;
	enum memwatch_number number;
	union memwatch_number_value value;
};

/*
 * The same as memwatch_region_list with a tenth of the bytes, for those who read all regions again and again. What does
 * not change, memwatch_region_info_get gives by the id.
 */
MEMWATCH_API int memwatch_region_sample_list_sized(memwatch *watcher, uint64_t *cursor,
						   struct memwatch_region_sample *samples, size_t n,
						   size_t struct_bytes);
MEMWATCH_INLINE int memwatch_region_sample_list(memwatch *watcher, uint64_t *cursor,
						struct memwatch_region_sample *samples, size_t n)
{
	return memwatch_region_sample_list_sized(watcher, cursor, samples, n, sizeof(struct memwatch_region_sample));
}

/*
 * memwatch_events_wait, which memwatch_events_wake with the same `woken` ends with 0 at once, too. `*woken` is the
 * caller's, one for each thread that waits, 0 at first; a wake that comes before the wait is kept in it and ends the
 * next one. Blocks.
 */
MEMWATCH_API int memwatch_events_wait_or_wake(memwatch *watcher, uint64_t since, int timeout_ms, int *woken);

/* Ends the memwatch_events_wait_or_wake under way with that `woken`, or else the next one. */
MEMWATCH_API void memwatch_events_wake(memwatch *watcher, int *woken);

/*
 * Ends the library's threads, until memwatch_threads_start: for a program that counts its threads before it forks.
 * What is written meanwhile is told afterwards; who wrote, only as far as the ring goes. An exporter or a recorder
 * keeps its own. Blocks.
 */
MEMWATCH_API void memwatch_threads_stop(void);

/*
 * Starts them again. 0; -EAGAIN when the system has no thread to give: then nothing is told until it has.
 */
MEMWATCH_API int memwatch_threads_start(void);

/*
 * For a thread that serves memwatch, as the exporter's and the recorder's do: what it writes from now on is nobody's,
 * as what the library's own threads write. It stays so until the thread ends.
 */
MEMWATCH_API void memwatch_thread_own(void);

/* Bytes of the UTF-8 character at `text`, 0 when there is none (also for surrogates and overlong forms). */
MEMWATCH_API size_t memwatch_utf8_length(const void *text, size_t n_bytes);

/* The next event that the sink reads is the one after `since`, or the oldest that is kept. Before its first read. */
MEMWATCH_API void memwatch_sink_seek(memwatch_sink *sink, uint64_t since);

/*
 * Tells the two kinds of -ENOENT of memwatch_load apart. 1: the key names a version that there is or was, also of a
 * region that was removed meanwhile; 0: no event can have given it out. -EINVAL not a key.
 */
MEMWATCH_API int memwatch_key_known(memwatch *watcher, const char *key);

#ifdef __cplusplus
}
#endif
#endif
