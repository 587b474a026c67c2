/*
 * memwatch.h -- which variable changed, when, from what to what, and who wrote it: in a process that goes on running.
 *
 * GLOSSARY
 *   watcher    one running instance (`memwatch *`). All watchers of a process share one engine: a worker thread and
 *              one that looks symbols up, one ring, one set of signal handlers.
 *   region     bytes that were registered under a name. Regions may overlap and share pages.
 *   page       an operating-system page, always.
 *   fault      the first write to an armed page.
 *   window     the time a page stays open after its first write; later writes run at full speed and coalesce.
 *   event      a region changed: what, from what, to what, by whom. Immutable, reference-counted.
 *   seq        an event's number in its watcher, from 1, without holes; the cursor of every feed.
 *   sink       a consumer of events with a cursor and an account of its own.
 *   dropped    lost, and counted by reason.            unchanged  written with the bytes it had.
 *   shadow     the last bytes known, what the diff compares with.
 *   history    older versions, kept within a budget.
 *
 * A COMPLETE PROGRAM
 *
 *   #include <memwatch/memwatch.h>
 *   #include <stdio.h>
 *
 *   static struct { int timeout; } config = { 30 };
 *
 *   static void on_change(const struct memwatch_event *event, void *arg)
 *   {
 *           (void)arg;
 *           printf("%s changed, written by %s\n", event->name, event->where.symbol);
 *   }
 *
 *   int main(void)
 *   {
 *           struct memwatch_region_options options;
 *           memwatch *watcher;
 *           memwatch_region_options_init(&options);
 *           options.name = "config";
 *           if (memwatch_open(NULL, &watcher) < 0 ||
 *               memwatch_region_add(watcher, &config, sizeof config, &options, NULL) < 0) {
 *                   fprintf(stderr, "%s\n", memwatch_error());
 *                   return 1;
 *           }
 *           memwatch_callback_set(watcher, on_change, NULL);
 *           config.timeout = 0;
 *           memwatch_close(watcher);         // flushes: the change above is delivered
 *   }
 *
 * ERRORS      Functions return 0 or a count, else -errno; on failure nothing has changed and memwatch_error() is a
 *             sentence that says what was wrong and what to do. The library never prints, exits or aborts.
 * CALLS       What a call may meet. "any": any thread, at any time; "no": undefined, and not told.
 *
 *   call                            thread      in a callback    in a handler   after its end       NULL
 *   open, *_init, error, version,   any         yes              no             -                   -EINVAL; options:
 *     threads_stop, threads_start                                                                   the defaults
 *   close                           any         own: -EDEADLK    no             -EBADF              0
 *   callback_set, flush             any         yes, waits not   no             -EBADF              -EINVAL
 *                                               for callbacks
 *   region_*, events_*, history_*,  any         yes              no             -EBADF              -EINVAL
 *     version_*, blame, load,
 *     key_known, stats_get, epoch,
 *     sink_open, *_list, event_post,
 *     external_set
 *   sink_read, sink_seek            one a sink  yes              no             no                  -EINVAL
 *   sink_wake, sink_report,         any         yes              no             no                  nothing
 *     sink_status_set, sink_close
 *   event_ref, event_unref          any         yes              no             no                  nothing
 *   number_read, struct_*, *_text,  any         yes              no             -                   NONE, -EINVAL, ""
 *     text_clean, utf8_length,
 *     histogram_bound
 *   thread_own                      its own     yes              no             -                   -
 *   location_intern                 any         yes              yes            0                   no
 *   frame_hook_set                  any         yes              no             -                   removes it
 *   exporter_open, recorder_open    any         yes              no             -EBADF              -EINVAL
 *   exporter_*, recorder_*          any         yes              no             no                  0, "", -EINVAL
 *
 *             "After its end": a watcher that was closed, and a pointer that is no watcher (-EINVAL), are told. Sinks,
 *             events, exporters and recorders are not: who closes one must be its last user. Watcher, exporter,
 *             recorder and sinks may be closed in any order; calls under way on a watcher that is closed end first.
 *             A place that a function fills must not be NULL unless its comment says so: -EINVAL. Places for a number
 *             that the caller may not want (ret_id, ret_seq, ret_cursor) may be NULL.
 * THREADS     Every function may be called from any thread unless its comment says otherwise; none may be called from
 *             a signal handler unless its comment says `Signal-safe`.
 * FORK        A forked child has no watcher: what the parent's handles are asked there fails with -ECHILD, and the
 *             child's writes are its own. The child may open watchers of its own.
 * LIMITS      16,777,215 regions at a time; names up to MEMWATCH_NAME_MAX bytes; addresses below 2^47 on x86-64, 2^48
 *             on arm64; 4 KiB pages are what is tested.
 */
#ifndef MEMWATCH_H
#define MEMWATCH_H

#if !defined(__linux__) || !defined(__LP64__)
#error "libmemwatch runs on 64-bit Linux"
#endif

#include <stddef.h>
#include <stdint.h>

#define MEMWATCH_VERSION "0.1.0"
#define MEMWATCH_API __attribute__((visibility("default")))
/* A function of the program's own: it tells the library how large the program's structures are; see types.h. */
#define MEMWATCH_INLINE static __inline__ __attribute__((unused))

#include <memwatch/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- errors ----------------------------------------------------------------------------------------------------- */

/*
 * The sentence of this thread's last failed call. Never NULL. Valid until the thread's next failing call.
 */
MEMWATCH_API const char *memwatch_error(void);

/* The library's version, as MEMWATCH_VERSION was when it was built. */
MEMWATCH_API const char *memwatch_version(void);

/* --- watchers --------------------------------------------------------------------------------------------------- */

/* Fills in the defaults; a structure must come from here, or be NULL where a function allows that. */
MEMWATCH_API void memwatch_options_init_sized(struct memwatch_options *options, size_t struct_bytes);
MEMWATCH_INLINE void memwatch_options_init(struct memwatch_options *options)
{
	memwatch_options_init_sized(options, sizeof(struct memwatch_options));
}

/*
 * Opens a watcher; `options` NULL for the defaults. -EINVAL for an option out of range; -ENOTSUP when the backend that
 * was asked for cannot run here (memwatch_error says what is missing); -EBUSY another watcher of the process has other
 * values of the options marked [engine]; -ENOMEM.
 */
MEMWATCH_API int memwatch_open(const struct memwatch_options *options, memwatch **ret_watcher);

/*
 * Ends a watcher: flushes (for at most two seconds), delivers to the callback, ends its regions. `watcher` may be NULL.
 * Threads inside memwatch_events_wait get -EPIPE, and it waits until all calls on this watcher are out; later ones get
 * -EBADF. Sinks read what is left, then get -EPIPE, and are closed by their owners. 0; -EDEADLK in a callback of its
 * own, or where two callbacks would wait for each other's watcher to end: nothing has happened then; -EBADF it was
 * closed; -ECHILD in a forked child, where it does nothing. Blocks.
 */
MEMWATCH_API int memwatch_close(memwatch *watcher);

/*
 * Waits until every write made before the call is an event in the log or accounted for. 0, or -ETIMEDOUT. Blocks.
 * Sinks may still have to read the events.
 */
MEMWATCH_API int memwatch_flush(memwatch *watcher, int timeout_ms);

/* A random number that names this watcher's numbering: seq is unique within an epoch. */
MEMWATCH_API uint64_t memwatch_epoch(const memwatch *watcher);

/* --- regions ---------------------------------------------------------------------------------------------------- */

/* Fills in the defaults. */
MEMWATCH_API void memwatch_region_options_init_sized(struct memwatch_region_options *options, size_t struct_bytes);
MEMWATCH_INLINE void memwatch_region_options_init(struct memwatch_region_options *options)
{
	memwatch_region_options_init_sized(options, sizeof(struct memwatch_region_options));
}

/*
 * Watches `size_bytes` at `address`; memory that vanishes ends the region, see MEMWATCH_EVENT_LOST. `ret_id` may be
 * NULL. -EINVAL size 0, address out of range; -EFAULT not readable, -EPERM and others when the kernel does not read for
 * us; -EEXIST the name is in use; -ENAMETOOLONG; -ENOSPC too many regions, or no watchpoint free; -ENOTSUP no
 * watchpoints here; -ENOTSUP, -EBUSY the backend that it asks for cannot take its pages; -ENOMEM. Blocks for as long as
 * one pass of the worker.
 */
MEMWATCH_API int memwatch_region_add(memwatch *watcher, void *address, size_t size_bytes,
				     const struct memwatch_region_options *options, uint64_t *ret_id);

/*
 * Stops watching; what was written before the call is still delivered. After it returns the memory is not read any
 * more. -ENOENT unknown id. Blocks for as long as one pass of the worker.
 */
MEMWATCH_API int memwatch_region_remove(memwatch *watcher, uint64_t id);

/* The id of the region of that name, or -ENOENT. */
MEMWATCH_API int memwatch_region_find(memwatch *watcher, const char *name, uint64_t *ret_id);

/*
 * Copies the first `size` bytes of the region's last known value (the shadow) into `buffer`. Returns how many; -ENOENT;
 * -EACCES when its policy is not MEMWATCH_VALUES_FULL; -EFAULT when it keeps hashes only and its memory is gone.
 */
MEMWATCH_API int64_t memwatch_region_read(memwatch *watcher, uint64_t id, void *buffer, size_t size);

/*
 * The same with the version it is: `*ret_seq` is the seq of the region's last event, 0 before the first.
 */
MEMWATCH_API int64_t memwatch_region_snapshot(memwatch *watcher, uint64_t id, void *buffer, size_t size,
					      uint64_t *ret_seq);

/*
 * Reads one element of a numeric region as `format` says: a letter of Python's struct module, with its byte order
 * before it. Returns which member of `*ret_value` it set, NONE when the format is no number's. A long double is
 * rounded. Any thread.
 */
MEMWATCH_API enum memwatch_number memwatch_number_read(const char *format, size_t item_bytes, const void *item,
						       union memwatch_number_value *ret_value);

/*
 * Lists regions in the order of their slots: fills up to `n` infos, starting after `*cursor` (0: the beginning), moves
 * the cursor. Returns how many; 0 at the end. Does not block the worker for longer than 64 regions take.
 */
MEMWATCH_API int memwatch_region_list_sized(memwatch *watcher, uint64_t *cursor, struct memwatch_region_info *infos,
					    size_t n, size_t struct_bytes);
MEMWATCH_INLINE int memwatch_region_list(memwatch *watcher, uint64_t *cursor, struct memwatch_region_info *infos,
					 size_t n)
{
	return memwatch_region_list_sized(watcher, cursor, infos, n, sizeof(struct memwatch_region_info));
}

/* One region's info; -ENOENT. */
MEMWATCH_API int memwatch_region_info_get_sized(memwatch *watcher, uint64_t id, struct memwatch_region_info *ret_info,
						size_t struct_bytes);
MEMWATCH_INLINE int memwatch_region_info_get(memwatch *watcher, uint64_t id, struct memwatch_region_info *ret_info)
{
	return memwatch_region_info_get_sized(watcher, id, ret_info, sizeof(struct memwatch_region_info));
}

/*
 * Smallest, largest, mean and NaN count over a numeric array's last known bytes (NaNs left out of the first three). Its
 * policy must be FULL. -ENOENT, -EACCES, -ENOTSUP when its format is no number.
 */
MEMWATCH_API int memwatch_region_summary_sized(memwatch *watcher, uint64_t id, struct memwatch_summary *ret_summary,
					       size_t struct_bytes);
MEMWATCH_INLINE int memwatch_region_summary(memwatch *watcher, uint64_t id, struct memwatch_summary *ret_summary)
{
	return memwatch_region_summary_sized(watcher, id, ret_summary, sizeof(struct memwatch_summary));
}

/* --- events ----------------------------------------------------------------------------------------------------- */

/* "exact", "page", "none"; "kernel", "throttled", "unavailable", "ring-full", ... Constants. */
MEMWATCH_API const char *memwatch_attribution_text(enum memwatch_attribution attribution);
MEMWATCH_API const char *memwatch_reason_text(enum memwatch_reason reason);

/* Keeps an event, and all that it points to, after the call that gave it; each reference is given back once. */
MEMWATCH_API void memwatch_event_ref(const struct memwatch_event *event);
MEMWATCH_API void memwatch_event_unref(const struct memwatch_event *event);

/*
 * The event as a line for people: "config.timeout: 30 -> 0, written by reload (server.c:41), thread main". Writes up to
 * `size` bytes with the NUL, as snprintf does, and returns the whole line's length without it. -EINVAL no event.
 */
MEMWATCH_API int memwatch_event_text(const struct memwatch_event *event, char *buffer, size_t size);

/*
 * A name or a path as people may read it, on one line: what is not UTF-8, control characters, and those that hide or
 * reorder become "\xNN". Writes up to `size` bytes with the NUL, as snprintf does, and returns the whole length without
 * it.
 */
MEMWATCH_API size_t memwatch_text_clean(const char *text, char *buffer, size_t size);

/*
 * Reads the log: up to `n` events with seq > since, in order, a reference each (memwatch_event_unref). Never blocks the
 * worker for longer than the copying of n pointers. Returns how many.
 */
MEMWATCH_API int memwatch_events_read_sized(memwatch *watcher, uint64_t since, const struct memwatch_event **events,
					    size_t n, struct memwatch_cursor *ret_cursor, size_t struct_bytes);
MEMWATCH_INLINE int memwatch_events_read(memwatch *watcher, uint64_t since, const struct memwatch_event **events,
					 size_t n, struct memwatch_cursor *ret_cursor)
{
	return memwatch_events_read_sized(watcher, since, events, n, ret_cursor, sizeof(struct memwatch_cursor));
}

/*
 * Waits until there is an event with seq > since. 1, 0 after `timeout_ms` (-1: for ever), -EPIPE once the watcher
 * closes. Blocks.
 */
MEMWATCH_API int memwatch_events_wait(memwatch *watcher, uint64_t since, int timeout_ms);

/* --- sinks ------------------------------------------------------------------------------------------------------ */

/*
 * A sink: a cursor on the log that starts at the newest event, with an account that stats and metrics show under `name`
 * ("callback", ...), of 1 to 31 bytes.
 */
MEMWATCH_API int memwatch_sink_open(memwatch *watcher, const char *name, memwatch_sink **ret_sink);

/*
 * Waits for events as memwatch_events_wait does and reads up to `n` of them. What the log evicted before this sink came
 * to it is counted as missed. Returns how many, 0 after the timeout, -EPIPE when the watcher closes and all is read.
 * One thread at a time. Blocks.
 */
MEMWATCH_API int memwatch_sink_read(memwatch_sink *sink, const struct memwatch_event **events, size_t n,
				    int timeout_ms);

/* Makes the memwatch_sink_read under way, or else the next one, return 0 at once. */
MEMWATCH_API void memwatch_sink_wake(memwatch_sink *sink);

/* Adds to the sink's account: one event handled in `duration_ns`, failed or not. */
MEMWATCH_API void memwatch_sink_report(memwatch_sink *sink, uint64_t duration_ns, int failed);

/*
 * Before or after the watcher is closed: a sink reads to the end of the log even then. NULL is allowed; in a forked
 * child it does nothing.
 */
MEMWATCH_API void memwatch_sink_close(memwatch_sink *sink);

/*
 * Calls `callback(event, arg)` for every event from now on, on a thread of the library's own; NULL stops. It replaces
 * the callback before, and waits for a call of that under way, but not in a callback: there it returns at once. The
 * event is valid during the call; memwatch_event_ref keeps it. A slow callback misses events, counted as its sink's
 * `missed`; it never slows the worker. A callback may call everything, see CALLS. -EAGAIN there is no thread; -ENOMEM.
 */
MEMWATCH_API int memwatch_callback_set(memwatch *watcher,
				       void (*callback)(const struct memwatch_event *event, void *arg), void *arg);

/* --- events from elsewhere -------------------------------------------------------------------------------------- */

/* Appends the event. Returns 0 and its seq in `*ret_seq` (may be NULL); -ENOENT, -EINVAL. */
MEMWATCH_API int memwatch_event_post(memwatch *watcher, uint64_t region_id, const struct memwatch_post *post,
				     uint64_t *ret_seq);

/*
 * What an external region holds now, where that is a number, without an event: for its first value. -ENOENT, -EINVAL.
 */
MEMWATCH_API int memwatch_external_set(memwatch *watcher, uint64_t region_id, const struct memwatch_scalar *number);

/* --- versions --------------------------------------------------------------------------------------------------- */

/*
 * Copies up to `size` bytes of the version that `key` names. Returns the version's whole size (call with size 0 to
 * learn it). -EINVAL not a key; -ENOENT unknown, or evicted from the history (memwatch_error names the oldest kept).
 */
MEMWATCH_API int64_t memwatch_load(memwatch *watcher, const char *key, void *buffer, size_t size);

/*
 * The events of a region whose versions are kept, newest first, with seq < before (0: from the newest), a reference
 * each. Returns how many; -ENOENT.
 */
MEMWATCH_API int memwatch_history_read(memwatch *watcher, uint64_t id, uint64_t before,
				       const struct memwatch_event **events, size_t n);

/*
 * Copies up to `size` bytes of what the region held after the event `seq` (another region's, too: after the last of its
 * own up to that; 0: before its first; UINT64_MAX: now). Returns the region's size. -ENOENT when that is not kept any
 * more (memwatch_error names the oldest), for an event before the region was watched, and for one that is not yet.
 */
MEMWATCH_API int64_t memwatch_version_read(memwatch *watcher, uint64_t id, uint64_t seq, void *buffer, size_t size);

/*
 * The seq of the region's last event at or before `time_ns` (CLOCK_REALTIME); 0: before its first. -ENOENT when that is
 * not kept any more, and for a time before the region was watched.
 */
MEMWATCH_API int memwatch_version_at(memwatch *watcher, uint64_t id, uint64_t time_ns, uint64_t *ret_seq);

/*
 * Who last changed the bytes [offset, offset + size_bytes) of a region, in runs of bytes with the same event, in order;
 * looked up by comparing versions, so it is exact. Fills up to `n` runs; when there are more, the rest is left out.
 * Returns how many; -ENOENT, -EINVAL, -EACCES, -ENOMEM.
 */
MEMWATCH_API int memwatch_blame_sized(memwatch *watcher, uint64_t id, uint64_t offset, uint64_t size_bytes,
				      struct memwatch_blame *blames, size_t n, size_t struct_bytes);
/* A macro, since there is a structure of that name. */
#define memwatch_blame(watcher, id, offset, size_bytes, blames, n)                                                     \
	memwatch_blame_sized((watcher), (id), (offset), (size_bytes), (blames), (n), sizeof(struct memwatch_blame))

/* --- who wrote: hooks for interpreters -------------------------------------------------------------------------- */

/*
 * Interns a location and returns its number, 0 when the table is full. `caller` is the number of the calling frame's
 * location or 0; given up when callers have filled their share. Strings are copied, of long ones the end of the file
 * and the beginning of the function. Signal-safe.
 */
MEMWATCH_API uint32_t memwatch_location_intern(const char *file, size_t file_bytes, const char *function,
					       size_t function_bytes, int line, uint32_t caller);

/* What a frame hook answers when it is memwatch's own code that runs: its writes are nobody's. */
#define MEMWATCH_LOCATION_OWN UINT32_MAX

/*
 * Installs the function that says where the interpreter of the faulting thread stands (a location's number, 0: not in
 * the interpreter). It runs in signal context on the writer's thread, before the write executes: no allocation, no
 * lock. `depth` is the stack_depth asked for. Process-wide; NULL removes it.
 */
MEMWATCH_API void memwatch_frame_hook_set(uint32_t (*hook)(void *ucontext, unsigned depth));

#ifdef __cplusplus
}
#endif

#include <memwatch/stats.h>
#include <memwatch/watch.h>

#endif
