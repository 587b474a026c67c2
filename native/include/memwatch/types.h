/*
 * types.h -- the constants and structures of memwatch.h, which includes it.
 *
 * WHO MAY BE OLDER    A program runs with a library that is older or newer than the header it was built with, while
 *             both have the same soname. A structure with `struct_bytes` grows at its end, and so does one that a
 *             function takes or fills whose name ends in `_sized` (the plain function beside it gives the size). Of one
 *             that the program gives, members that it does not have get their defaults; members that the library does
 *             not have must be 0. Of one that the library fills, members that it does not have are 0. MEMWATCH_HAS asks
 *             an event whether it has a member. All other structures never change. No structure ends in padding that
 *             a new member could take, and none depends on where an enum ends.
 */
#ifndef MEMWATCH_TYPES_H
#define MEMWATCH_TYPES_H

#ifndef MEMWATCH_H
#error "include <memwatch/memwatch.h>"
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
	MEMWATCH_NAME_MAX = 255,   /* bytes of a region's name, without the NUL */
	MEMWATCH_CHANGES_MAX = 64, /* changed ranges that an event lists; `changed_bytes` counts all */
	MEMWATCH_KEY_SIZE = 33,    /* a storage key: 32 hexadecimal digits and a NUL */
	MEMWATCH_DIMS_MAX = 32,    /* dimensions of a region's shape */
	MEMWATCH_STACK_MAX = 32    /* frames that `stack_depth` may ask for */
};

typedef struct memwatch memwatch;
typedef struct memwatch_sink memwatch_sink;

/* Whether a structure with struct_bytes, made by the library that runs, has this member. */
#define MEMWATCH_HAS(structure, member)                                                                                \
	((size_t)((const char *)(&(structure)->member + 1) - (const char *)(structure)) <= (structure)->struct_bytes)

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
	double poll_budget; /* [engine] 0.01: share of one core that looking at polled memory may cost; up to 1 */
	/* [engine] 1: frames in `where`, native ones too, the writer's own first, up to MEMWATCH_STACK_MAX */
	uint32_t stack_depth;
	uint32_t inline_threshold; /* 4,096: up to this many bytes an event carries the values themselves */
	uint32_t preview_size;     /* 256: bytes of old_preview and new_preview */
	uint32_t event_capacity;   /* 65,536 events kept for the sinks */
	uint64_t event_budget;     /* 64 MiB for them */
	uint64_t history_budget;   /* 64 MiB of overwritten bytes */
	int patches;               /* 1: events carry what was written (memwatch_event.patch), for a recorder; 0 */
	int follows_forks;         /* 1: the caller opens another watcher in forked children: they are watched; 0 */
};

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
	/*
	 * No memory at all: the region's events come from memwatch_event_post. `address` NULL, `size_bytes` 0; of the
	 * options only name, values and history_budget.
	 */
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
	MEMWATCH_WHEN_ANY_NAN, /* one became NaN; floating-point numbers only */
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
	/*
	 * Unique in the watcher, any bytes, UTF-8 by custom; NULL: "region-<id>". Everything that memwatch makes for
	 * people shows it as memwatch_text_clean does; events and feeds have its bytes.
	 */
	const char *name;
	uint32_t flags;
	enum memwatch_values values; /* MEMWATCH_VALUES_AUTO */
	/* One element's format as Python's struct module writes it ("d"; "<i4" is not one). NULL: bytes. */
	const char *format;
	size_t item_bytes;   /* one element's size; 0: as the format tells, 1 for bytes */
	uint32_t n_dims;     /* 0: a scalar when item_bytes == size_bytes, else one dimension */
	const size_t *shape; /* n_dims extents, C order; copied */
	int fortran_order;   /* the shape's first index runs fastest */
	enum memwatch_when when;
	double low, high; /* of `when`; 0 where it does not look at them */
	/* Events a second, 1e-9 to 1e9, 0: no limit. What comes faster is merged, without an exact author. */
	double max_rate;
	uint64_t history_budget; /* of this region, within the watcher's; 0: no bound of its own */
	int metric; /* 1: numeric arrays too export min, max, mean and NaN count; scalars always export their value */
	enum memwatch_precise precise; /* for 1, 2, 4 or 8 bytes at an address that is a multiple of the size */
	const char *backend;           /* of this region: as memwatch_options.backend; NULL, "": the watcher's */
};

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

struct memwatch_summary {
	double min, max, mean;
	uint64_t n_nan, n_items;
};

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
	 * This store has run, in the window that the event tells, and overlaps bytes that changed: of several writers
	 * the first that is known. An event that holds the writes of one author never names another.
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
	/*
	 * Innermost first, up to `stack_depth`: frames of the interpreter that a frame hook read; else, for a depth of
	 * 2 and more, native ones, of which the first is `native`.
	 */
	uint32_t n_frames;
	const struct memwatch_frame *frames;
	/*
	 * The function that stored; of a store within the C library the first one outside it, which made the call, and
	 * the C library's own where that one is not known. "" when unknown.
	 */
	const char *symbol;
	const char *object; /* the file that holds it, "" when unknown */
	/*
	 * From the symbol, or from the object when there is no symbol, to fault_ip; of a call, to where that returns
	 */
	uint64_t offset;
	struct memwatch_frame native; /* its file and line, where it has debug information */
	/*
	 * Of MEMWATCH_ATTRIBUTION_PAGE: who wrote to the page. A hint, and often not who made this change. Else
	 * NULL.
	 */
	const struct memwatch_where *page_writer;
	/* The C library's function that stored for `symbol`, where its name is known; "" otherwise. */
	const char *libc_function;
	uint64_t reserved[3]; /* 0; members to come */
};

struct memwatch_range {
	uint64_t offset, size_bytes; /* from the region's start */
};

/*
 * Immutable. Everything it points to lives as long as the reference.
 */
struct memwatch_event {
	size_t struct_bytes; /* of this structure as the library that runs knows it; see MEMWATCH_HAS */
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
	/*
	 * "" up to the inline threshold, or when no history is kept; the old one also when `when` has filtered
	 * changes since the region's last event: they made no version.
	 */
	char storage_key_old[MEMWATCH_KEY_SIZE];
	char storage_key_new[MEMWATCH_KEY_SIZE];
	uint64_t old_hash, new_hash; /* policy HASH only */
	/* how many bytes differ; of a merged event without values, how many changed, or that many at least */
	uint64_t changed_bytes;
	uint32_t n_changes; /* ranges listed, in order; when there were more, the last one spans the rest */
	const struct memwatch_range *changes;
	/*
	 * With options.patches, policy FULL: the new bytes, in runs of two uint64_t (offset and size) and that many
	 * bytes, in order. More may be listed than changed. NULL otherwise, or when there was no room.
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
	/*
	 * Policy FULL, above the inline threshold: the first items that changed behind the preview, whole, as they were
	 * and as they are, in the form of `patch`. At most 256 bytes of items, or one of up to 4,096, and 16 runs; in
	 * order. NULL otherwise, and for what has no shadow of bytes.
	 */
	const uint8_t *old_excerpt, *new_excerpt;
	uint64_t excerpt_bytes; /* of each */
};

/* Where a reader of the log stands. */
struct memwatch_cursor {
	uint64_t oldest, newest; /* seq of the oldest and newest event kept; oldest == newest + 1 when there is none */
	uint64_t missed;         /* events after `since` that are gone */
	uint64_t next;           /* pass this as the next `since` */
};

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

/* --- versions --------------------------------------------------------------------------------------------------- */

/* Who last wrote a part of a region. */
struct memwatch_blame {
	uint64_t offset, size_bytes;
	const struct memwatch_event *event; /* a reference; NULL: not changed since the oldest version kept */
};

#ifdef __cplusplus
}
#endif
#endif
