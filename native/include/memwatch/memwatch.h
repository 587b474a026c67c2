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
 * THREADS     Every function may be called from any thread unless its comment says otherwise; none may be called from
 *             a signal handler unless its comment says `Signal-safe`.
 * FORK        A forked child has no watcher: what the parent's handles are asked there fails with -ECHILD, and the
 *             child's writes are its own. The child may open watchers of its own.
 * LIMITS      16,777,215 regions at a time; names up to MEMWATCH_NAME_MAX bytes; addresses below 2^47 on x86-64, 2^48
 *             on arm64; 4 KiB pages are what is tested.
 */
#ifndef MEMWATCH_H
#define MEMWATCH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MEMWATCH_VERSION "0.1.0"
#define MEMWATCH_API __attribute__((visibility("default")))

enum {
	MEMWATCH_NAME_MAX = 255,   /* bytes of a region's name, without the NUL */
	MEMWATCH_CHANGES_MAX = 64, /* changed ranges that an event lists; `changed_bytes` counts all */
	MEMWATCH_KEY_SIZE = 33,    /* a storage key: 32 hexadecimal digits and a NUL */
	MEMWATCH_DIMS_MAX = 32,    /* dimensions of a region's shape */
	MEMWATCH_STACK_MAX = 32    /* frames that `stack_depth` may ask for */
};

typedef struct memwatch memwatch;
typedef struct memwatch_sink memwatch_sink;

/* --- errors ----------------------------------------------------------------------------------------------------- */

/*
 * The sentence of this thread's last failed call. Never NULL. Valid until the thread's next failing call.
 */
MEMWATCH_API const char *memwatch_error(void);

/* The library's version, as MEMWATCH_VERSION was when it was built. */
MEMWATCH_API const char *memwatch_version(void);

/* --- watchers --------------------------------------------------------------------------------------------------- */

/*
 * Options of a watcher. Those marked [engine] belong to the engine that all watchers of the process share: the first
 * watcher sets them, and a later one that asks for another value gets -EBUSY until the others are closed.
 */
struct memwatch_options {
	size_t struct_bytes;    /* set by memwatch_options_init */
	const char *backend;    /* "auto" (uffd, else poll), "uffd", "poll", "mprotect" (hazards: docs/limits.md) */
	uint32_t window_ms;     /* [engine] 5; 1 to 10,000 */
	uint32_t ring_capacity; /* [engine] 65,536 notes of 32 bytes; a power of two from 16 to 2^24 */
	/* [engine] 0.01: share of one core that ordinary page faults may cost; 0 off, 1 free */
	double attribution_budget;
	double poll_budget;   /* [engine] 0.01: share of one core that looking at polled memory may cost; up to 1 */
	uint32_t stack_depth; /* [engine] 1: frames in `where`, the writer's own first, up to MEMWATCH_STACK_MAX */
	uint32_t inline_threshold; /* 4,096: up to this many bytes an event carries the values themselves */
	uint32_t preview_size;     /* 256: bytes of old_preview and new_preview */
	uint32_t event_capacity;   /* 65,536 events kept for the sinks */
	uint64_t event_budget;     /* 64 MiB for them */
	uint64_t history_budget;   /* 64 MiB of overwritten bytes */
	int patches;               /* 1: events carry what was written (memwatch_event.patch), for a recorder; 0 */
	int follows_forks;         /* 1: the caller opens another watcher in forked children: they are watched; 0 */
};

/* Fills in the defaults. */
MEMWATCH_API void memwatch_options_init(struct memwatch_options *options);

/*
 * Opens a watcher; `options` NULL for the defaults. -EINVAL for an option out of range; -ENOTSUP when the backend that
 * was asked for cannot run here (memwatch_error says what is missing); -EBUSY as told above; -ENOMEM.
 */
MEMWATCH_API int memwatch_open(const struct memwatch_options *options, memwatch **ret_watcher);

/*
 * Ends a watcher: flushes (for at most two seconds), delivers to the callback, ends its regions. `watcher` may be NULL.
 * Threads inside memwatch_events_wait get -EPIPE, and it waits until they are out; sinks read what is left, then get
 * -EPIPE, and are closed by their owners. No other call on this watcher may be under way or follow. Not from a
 * callback. In a forked child it does nothing. Blocks.
 */
MEMWATCH_API void memwatch_close(memwatch *watcher);

/*
 * Waits until every write made before the call is an event in the log or accounted for. 0, or -ETIMEDOUT. Blocks.
 * Sinks may still have to read the events.
 */
MEMWATCH_API int memwatch_flush(memwatch *watcher, int timeout_ms);

/* A random number that names this watcher's numbering: seq is unique within an epoch. */
MEMWATCH_API uint64_t memwatch_epoch(const memwatch *watcher);

/* --- regions ---------------------------------------------------------------------------------------------------- */

/* What of a region's values may leave the worker. */
enum memwatch_values {
	MEMWATCH_VALUES_FULL,    /* values, previews, versions */
	MEMWATCH_VALUES_PREVIEW, /* the first preview_size bytes only */
	MEMWATCH_VALUES_HASH,    /* a 64-bit hash of old and new only, with a key of this watcher */
	MEMWATCH_VALUES_NONE,    /* nothing but that it changed */
	MEMWATCH_VALUES_AUTO     /* HASH when the name looks like a secret's (password, token, key, ...), else FULL */
};

enum {
	/*
	 * A promise that each byte can be read until the region is removed: mapped, readable, no guard page, of no file
	 * that can shrink. The worker reads directly then; broken, it ends the process. Otherwise memory that vanishes
	 * ends the region.
	 */
	MEMWATCH_REGION_PINNED = 1 << 0,
	/* No memory at all: the region's events come from memwatch_event_post. `address` NULL, `size_bytes` 0. */
	MEMWATCH_REGION_EXTERNAL = 1 << 1,
	/* Keeps 8 bytes a page (XXH3) instead of a copy: changes are seen to the page, old bytes are not. */
	MEMWATCH_REGION_HASHED = 1 << 2
};

/*
 * When a change is worth an event: judged on the changed elements of a numeric region (see `format`) before anything is
 * sent; a change that is not counts as `filtered`. NaN is neither greater nor less than anything.
 */
enum memwatch_when {
	MEMWATCH_WHEN_CHANGED, /* always */
	MEMWATCH_WHEN_ANY_NAN, /* one became NaN */
	MEMWATCH_WHEN_GT,      /* one is > low */
	MEMWATCH_WHEN_GE,
	MEMWATCH_WHEN_LT, /* one is < low */
	MEMWATCH_WHEN_LE,
	MEMWATCH_WHEN_EQ,
	MEMWATCH_WHEN_NE,
	MEMWATCH_WHEN_OUTSIDE, /* one is < low or > high */
	MEMWATCH_WHEN_INSIDE,  /* one is >= low and <= high */
	MEMWATCH_WHEN_DELTA_GT /* one moved by more than low */
};

/*
 * Hardware watchpoints: each write is a detection and, when it changed the value, an event of its own, with its own old
 * and new value.
 */
enum memwatch_precise {
	/*
	 * Free ones are lent to regions of up to 32 bytes on shared pages, so that neighbours' writes do not cost them
	 * their authors; what is an event stays as without
	 */
	MEMWATCH_PRECISE_AUTO,
	MEMWATCH_PRECISE_REQUIRED, /* one as long as the region is watched; the process has four */
	MEMWATCH_PRECISE_NEVER
};

struct memwatch_region_options {
	size_t struct_bytes; /* set by memwatch_region_options_init */
	const char *name;    /* unique in the watcher, UTF-8 by custom; NULL: "region-<id>" */
	uint32_t flags;
	enum memwatch_values values; /* MEMWATCH_VALUES_AUTO */
	/* One element's format as Python's struct module writes it ("d"; "<i4" is not one). NULL: bytes. */
	const char *format;
	size_t item_bytes;   /* one element's size; 0: 1 */
	uint32_t n_dims;     /* 0: a scalar when item_bytes == size_bytes, else one dimension */
	const size_t *shape; /* n_dims extents, C order; copied */
	int fortran_order;   /* the shape's first index runs fastest */
	enum memwatch_when when;
	double low, high; /* of `when` */
	/* Events a second, 0: no limit; what comes faster is merged into one event without an exact author */
	double max_rate;
	uint64_t history_budget; /* of this region, within the watcher's; 0: no bound of its own */
	int metric; /* 1: numeric arrays too export min, max, mean and NaN count; scalars always export their value */
	enum memwatch_precise precise; /* for 1, 2, 4 or 8 bytes at an address that is a multiple of the size */
};

MEMWATCH_API void memwatch_region_options_init(struct memwatch_region_options *options);

/*
 * Watches `size_bytes` at `address`; memory that vanishes ends the region, see MEMWATCH_EVENT_LOST. `ret_id` may be
 * NULL. -EINVAL size 0, address out of range; -EFAULT not readable, -EPERM and others when the kernel does not read for
 * us; -EEXIST the name is in use; -ENAMETOOLONG; -ENOSPC too many regions, or no watchpoint free; -ENOTSUP no
 * watchpoints here; -ENOMEM. Blocks for as long as one pass of the worker.
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

/* One region's ledger: detected = delivered + coalesced + unchanged + filtered + dropped. */
struct memwatch_ledger {
	uint64_t detected;  /* windows in which one of its pages was written */
	uint64_t delivered; /* an event went to the sinks */
	uint64_t coalesced; /* merged into a later event of the region */
	uint64_t unchanged; /* same bytes */
	uint64_t filtered;  /* its condition said no */
	uint64_t dropped;   /* lost, see memwatch_stats.dropped_by */
};

/* What a numeric region holds, from the last bytes known; see memwatch_region_info.number. */
enum memwatch_number { MEMWATCH_NUMBER_NONE, MEMWATCH_NUMBER_INT, MEMWATCH_NUMBER_UINT, MEMWATCH_NUMBER_DOUBLE };
union memwatch_number_value {
	int64_t as_int;
	uint64_t as_uint;
	double as_double;
};
struct memwatch_scalar {
	enum memwatch_number number; /* which member is set */
	union memwatch_number_value value;
};

/*
 * Reads one element of a numeric region as `format` says: a letter of Python's struct module, with its byte order
 * before it. Returns which member of `*ret_value` it set, NONE when the format is no number's. A long double is
 * rounded. Any thread.
 */
MEMWATCH_API enum memwatch_number memwatch_number_read(const char *format, size_t item_bytes, const void *item,
						       union memwatch_number_value *ret_value);

struct memwatch_region_info {
	uint64_t id;
	char name[MEMWATCH_NAME_MAX + 1];
	uint64_t address, size_bytes;
	uint32_t flags;
	enum memwatch_values values;
	const char *backend; /* "uffd", "poll", "mprotect", "external"; a constant */
	char format[16];     /* "" for bytes and for formats of more than 15 characters */
	uint64_t item_bytes;
	uint32_t n_dims;
	uint64_t shape[MEMWATCH_DIMS_MAX];
	int metric;
	int precise; /* it has a hardware watchpoint now */
	struct memwatch_ledger ledger;
	uint64_t added_ns;           /* CLOCK_REALTIME, since when it is watched, */
	uint64_t added_seq;          /* and the watcher's newest event then */
	uint64_t last_seq;           /* of its last event, 0: none yet */
	uint64_t last_time_ns;       /* CLOCK_REALTIME of its last event, 0: none yet */
	enum memwatch_number number; /* of a numeric scalar whose policy is FULL: which of the next is set */
	union memwatch_number_value value;
};

/*
 * Lists regions in the order of their slots: fills up to `n` infos, starting after `*cursor` (0: the beginning), moves
 * the cursor. Returns how many; 0 at the end. Does not block the worker for longer than 64 regions take.
 */
MEMWATCH_API int memwatch_region_list(memwatch *watcher, uint64_t *cursor, struct memwatch_region_info *infos,
				      size_t n);

/* One region's info; -ENOENT. */
MEMWATCH_API int memwatch_region_info_get(memwatch *watcher, uint64_t id, struct memwatch_region_info *ret_info);

/*
 * Smallest, largest, mean and NaN count over a numeric array's last known bytes (NaNs left out of the first three). Its
 * policy must be FULL. -ENOENT, -EACCES, -ENOTSUP when its format is no number.
 */
struct memwatch_summary {
	double min, max, mean;
	uint64_t n_nan, n_items;
};
MEMWATCH_API int memwatch_region_summary(memwatch *watcher, uint64_t id, struct memwatch_summary *ret_summary);

/* --- events ----------------------------------------------------------------------------------------------------- */

enum memwatch_event_kind {
	MEMWATCH_EVENT_CHANGE, /* the region's bytes changed */
	MEMWATCH_EVENT_LOST    /* the region's memory vanished; the region has ended */
};

/* How well the writer is known. Never a guess shown as a fact. */
enum memwatch_attribution {
	MEMWATCH_ATTRIBUTION_NONE, /* see reason */
	MEMWATCH_ATTRIBUTION_PAGE, /* somebody wrote to the page, elsewhere or at another time: see page_writer */
	/*
	 * This store, in the window that the event tells, overlaps bytes that changed: of several writers the first. An
	 * event that holds the writes of one author never names another.
	 */
	MEMWATCH_ATTRIBUTION_EXACT
};

enum memwatch_reason {
	MEMWATCH_REASON_NONE,      /* the writer is known */
	MEMWATCH_REASON_KERNEL,    /* a system call wrote: one range on pages of the region's own, opened by no store */
	MEMWATCH_REASON_THROTTLED, /* the attribution budget was used up */
	MEMWATCH_REASON_UNAVAILABLE, /* this machine or backend cannot tell; memwatch_stats.attribution_note says why */
	MEMWATCH_REASON_RING_FULL,   /* the note was dropped */
	MEMWATCH_REASON_OFF,         /* attribution_budget is 0 */
	MEMWATCH_REASON_TRACED,      /* a debugger traces the process */
	MEMWATCH_REASON_BLOCKED,     /* a thread blocks SIGTRAP and holds one of ours: it may be the writer */
	MEMWATCH_REASON_POLLING,     /* the region is polled */
	MEMWATCH_REASON_UNKNOWN,     /* none of these can be told apart */
	MEMWATCH_REASON_OWN,         /* memwatch itself had opened the page by a write of its own */
	MEMWATCH_REASON_FOREIGN,     /* another process or another mapping of the same memory */
	MEMWATCH_REASONS
};

/* "exact", "page", "none"; "kernel", "throttled", "unavailable", "ring-full", ... Constants. */
MEMWATCH_API const char *memwatch_attribution_text(enum memwatch_attribution attribution);
MEMWATCH_API const char *memwatch_reason_text(enum memwatch_reason reason);

/* One source location. Strings are never NULL and live as long as the process; "" and 0 when unknown. */
struct memwatch_frame {
	const char *file;
	const char *function;
	int line;
};

/*
 * Who wrote. Only of MEMWATCH_ATTRIBUTION_EXACT is anything known beyond the reason; what `page` knows stands in
 * `page_writer`.
 */
struct memwatch_where {
	enum memwatch_attribution attribution;
	enum memwatch_reason reason;
	uint64_t fault_ip;       /* the storing instruction, 0 when unknown */
	uint64_t fault_address;  /* what it wrote to, 0 when unknown */
	int32_t thread_id;       /* as gettid(2) gives it, 0 when unknown */
	const char *thread_name; /* the thread's name in the system, "" when unknown; lives as long as the event */
	uint32_t n_frames;       /* frames of the interpreter that a frame hook read, innermost first */
	const struct memwatch_frame *frames;
	const char *symbol;           /* the storing function, "" when unknown */
	const char *object;           /* the file that holds it, "" when unknown */
	uint64_t offset;              /* of fault_ip from the symbol, or from the object when there is no symbol */
	struct memwatch_frame native; /* its file and line, where it has debug information */
	/*
	 * Of MEMWATCH_ATTRIBUTION_PAGE: who wrote to the page. A hint, and often not who made this change. Else
	 * NULL.
	 */
	const struct memwatch_where *page_writer;
};

struct memwatch_range {
	uint64_t offset, size_bytes; /* from the region's start */
};

/*
 * Immutable. Everything it points to lives as long as the reference.
 */
struct memwatch_event {
	uint64_t seq;
	uint64_t time_ns;     /* CLOCK_REALTIME: of the fault where it is known, else of the detection */
	uint64_t detected_ns; /* CLOCK_REALTIME: when the worker made the event */
	uint64_t region_id;
	const char *name;
	enum memwatch_event_kind kind;
	const char *backend; /* a constant */
	uint64_t size_bytes; /* of the region */
	enum memwatch_values
		values; /* the policy under which it was made; what the policy hides is NULL, 0 or "" below */
	uint64_t old_bytes, new_bytes;            /* of the values: size_bytes both; a posted event's may differ */
	const uint8_t *old_value, *new_value;     /* old_bytes and new_bytes; NULL above the inline threshold */
	const uint8_t *old_preview, *new_preview; /* the first preview_bytes of them, or all if they are shorter */
	uint64_t preview_bytes;
	char storage_key_old[MEMWATCH_KEY_SIZE]; /* "" up to the inline threshold, or when no history is kept */
	char storage_key_new[MEMWATCH_KEY_SIZE];
	uint64_t old_hash, new_hash; /* policy HASH only */
	uint64_t changed_bytes;      /* how many bytes differ */
	uint32_t n_changes;          /* ranges listed; when there were more, the last one spans the rest */
	const struct memwatch_range *changes;
	/*
	 * With options.patches, policy FULL: the new bytes, in runs of two uint64_t (offset and size) and that many
	 * bytes. More may be listed than changed. NULL otherwise, or when there was no room.
	 */
	const uint8_t *patch;
	const uint8_t *patch_old; /* the same runs with the bytes that they had before; NULL when `patch` is */
	uint64_t patch_bytes;     /* of each */
	uint64_t merged;          /* earlier detections that were coalesced into this event */
	const char *format;       /* the region's, "" for bytes */
	uint64_t item_bytes;
	uint32_t n_dims;
	const uint64_t *shape;
	int fortran_order;
	struct memwatch_scalar old_number, new_number; /* of a posted event: see struct memwatch_post */
	struct memwatch_where where;
};

MEMWATCH_API void memwatch_event_ref(const struct memwatch_event *event);
MEMWATCH_API void memwatch_event_unref(const struct memwatch_event *event);

/* Where a reader of the log stands. */
struct memwatch_cursor {
	uint64_t oldest, newest; /* seq of the oldest and newest event kept; oldest == newest + 1 when there is none */
	uint64_t missed;         /* events after `since` that are gone */
	uint64_t next;           /* pass this as the next `since` */
};

/*
 * Reads the log: up to `n` events with seq > since, in order, a reference each (memwatch_event_unref). Never blocks the
 * worker for longer than the copying of n pointers. Returns how many.
 */
MEMWATCH_API int memwatch_events_read(memwatch *watcher, uint64_t since, const struct memwatch_event **events, size_t n,
				      struct memwatch_cursor *ret_cursor);

/*
 * Waits until there is an event with seq > since. 1, 0 after `timeout_ms` (-1: for ever), -EPIPE once the watcher
 * closes. Blocks.
 */
MEMWATCH_API int memwatch_events_wait(memwatch *watcher, uint64_t since, int timeout_ms);

/* --- sinks ------------------------------------------------------------------------------------------------------ */

/*
 * A sink: a cursor on the log that starts at the newest event, with an account that stats and metrics show under `name`
 * ("callback", ...).
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
 * Calls `callback(event, arg)` for every event from now on, on a thread of the library's own; NULL stops (and waits for
 * the call under way). The event is valid during the call; memwatch_event_ref keeps it. A slow callback misses events,
 * counted as its sink's `missed`; it never slows the worker.
 */
MEMWATCH_API int memwatch_callback_set(memwatch *watcher,
				       void (*callback)(const struct memwatch_event *event, void *arg), void *arg);

/* --- events from elsewhere -------------------------------------------------------------------------------------- */

/*
 * A change that somebody else found, for a region with MEMWATCH_REGION_EXTERNAL. All pointers are read during the call
 * only.
 */
struct memwatch_post {
	size_t struct_bytes;               /* sizeof(struct memwatch_post) */
	uint64_t time_ns;                  /* CLOCK_REALTIME; 0: now */
	const void *old_value, *new_value; /* what to show, often a repr in UTF-8; NULL: none */
	size_t old_bytes, new_bytes;       /* at most inline_threshold each is kept */
	enum memwatch_attribution attribution;
	enum memwatch_reason reason;
	int32_t thread_id;
	const char *thread_name;             /* NULL: "" */
	const struct memwatch_frame *frames; /* innermost first */
	uint32_t n_frames;
	const char *backend; /* "trace", "polling", ...; copied; NULL: "external" */
	/* the values, where they are numbers: what metrics and feeds say */
	struct memwatch_scalar old_number, new_number;
};

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

/* Who last wrote a part of a region. */
struct memwatch_blame {
	uint64_t offset, size_bytes;
	const struct memwatch_event *event; /* a reference; NULL: not changed since the oldest version kept */
};

/*
 * Who last changed the bytes [offset, offset + size_bytes) of a region, in runs of bytes with the same event, in order;
 * looked up by comparing versions, so it is exact. Fills up to `n` runs; when there are more, the rest is left out.
 * Returns how many; -ENOENT, -EINVAL, -EACCES, -ENOMEM.
 */
MEMWATCH_API int memwatch_blame(memwatch *watcher, uint64_t id, uint64_t offset, uint64_t size_bytes,
				struct memwatch_blame *blames, size_t n);

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

#endif
