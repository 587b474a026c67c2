/*
 * stats.h -- what a watcher counts. A part of memwatch.h, which includes it.
 */
#ifndef MEMWATCH_STATS_H
#define MEMWATCH_STATS_H

#ifndef MEMWATCH_H
#error "include <memwatch/memwatch.h>"
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
	MEMWATCH_LATENCY_BUCKETS = 12, /* see struct memwatch_histogram; the bounds never change */
	MEMWATCH_BUCKETS_ROOM = 16,
	/* Room in arrays that an enum indexes: more than it will ever have. */
	MEMWATCH_DROPS_ROOM = 16,
	MEMWATCH_REASONS_ROOM = 32,
	MEMWATCH_ATTRIBUTIONS_ROOM = 8
};

/* Why a note, an event or a detection was lost. */
enum memwatch_drop {
	/* a note: the change itself is still detected, without author. Not part of the ledger. */
	MEMWATCH_DROP_RING_FULL,
	MEMWATCH_DROP_NO_MEMORY,  /* a detection */
	MEMWATCH_DROP_VANISHED,   /* a detection: the memory was gone when it was to be read */
	MEMWATCH_DROP_UNREADABLE, /* a detection: the kernel refused to read the memory; a later pass tries again */
	MEMWATCH_DROPS
};
/* "ring_full", "no_memory", "vanished", "unreadable"; "" for others. Constants. */
MEMWATCH_API const char *memwatch_drop_text(enum memwatch_drop drop);

/*
 * Counts of durations. Bucket i counts those of at most memwatch_histogram_bound(i) seconds (not cumulative), bucket
 * MEMWATCH_LATENCY_BUCKETS the longer ones; the rest is 0.
 */
struct memwatch_histogram {
	uint64_t buckets[MEMWATCH_BUCKETS_ROOM];
	uint64_t count;
	uint64_t sum_ns;
};
/* The upper bound of bucket i of struct memwatch_histogram in seconds; 0 behind the last one. */
MEMWATCH_API double memwatch_histogram_bound(unsigned i);

struct memwatch_backend_info {
	const char *name;
	int probed; /* 0: nobody knows, since another was taken */
	int usable;
	int chosen;     /* by this watcher */
	char note[204]; /* why not, or what to know; "" when there is nothing to say */
};

/* What a sink that keeps events says of its work, such as a recorder. */
struct memwatch_sink_status {
	int failing; /* it cannot keep them now */
	uint64_t events_written, events_missed, errors;
	uint64_t bytes_used, max_bytes;
	uint64_t last_commit_ns; /* CLOCK_REALTIME; 0: none yet */
	char message[200];       /* of the last error, "" when there was none */
	uint64_t reserved[4];    /* 0; members to come */
};

/* Shows it in memwatch_sink_list, and so in the exporter's metrics and page. Copied. */
MEMWATCH_API void memwatch_sink_status_set_sized(memwatch_sink *sink, const struct memwatch_sink_status *status,
						 size_t struct_bytes);
MEMWATCH_INLINE void memwatch_sink_status_set(memwatch_sink *sink, const struct memwatch_sink_status *status)
{
	memwatch_sink_status_set_sized(sink, status, sizeof(struct memwatch_sink_status));
}

struct memwatch_sink_info {
	char name[32];
	uint64_t received, missed, failed; /* events */
	uint64_t lag;                      /* events it has still to read */
	struct memwatch_histogram duration;
	int has_status;
	struct memwatch_sink_status status;
};

struct memwatch_stats {
	/* --- this watcher --- */

	const char *backend;
	/* Which numbering its seqs belong to: another watcher has another. */
	uint64_t epoch;
	/* CLOCK_REALTIME */
	uint64_t start_time_ns;
	uint64_t n_regions, tracked_bytes;
	struct memwatch_ledger ledger;
	/* By enum memwatch_drop; what the ring dropped is the engine's. */
	uint64_t dropped_by[MEMWATCH_DROPS_ROOM];
	/* Events by enum memwatch_attribution. */
	uint64_t attribution_by[MEMWATCH_ATTRIBUTIONS_ROOM];
	/* Events without a known writer, by enum memwatch_reason. */
	uint64_t reason_by[MEMWATCH_REASONS_ROOM];
	/* The log: the seqs that it has, how many events and bytes, and how many it had to give up. */
	uint64_t events_oldest, events_newest, events_kept, events_bytes, events_evicted;
	struct {
		uint64_t bytes, budget, versions, evicted;
	} history;
	/* From a fault to its event; of events whose fault is known. */
	struct memwatch_histogram latency;

	/* --- the engine that all watchers of the process share --- */

	/* What malloc and mmap gave us. */
	uint64_t native_memory_bytes;
	/* Notes taken. */
	uint64_t faults;
	/* Notes that it can hold, that wait now, that ever waited at once, and that found it full. */
	struct {
		uint64_t capacity, depth, high_water, dropped;
	} ring;
	uint64_t armed_pages, passes, pages_written;
	/* How long a page stays open; the sweep's present interval. */
	uint32_t window_ms, sweep_ms;
	/* Polled memory: a change that lasts longer is told, that much later at most. */
	uint32_t poll_round_ms;
	uint64_t polled_bytes;
	/* Shares of one core. */
	double poll_budget, attribution_budget;
	/* Signals taken; of these, for our pages, for others', and for neighbours' writes that were stepped over. */
	uint64_t signals, signals_ours, signals_foreign, stepped;
	/* How long the budget was used up: faults were not told, or neighbours' writes opened the page. */
	uint64_t throttled_ns;
	int attribution_available;
	/* Foreign faults stay in the kernel, by BPF. */
	int attribution_filtered;
	/* Why attribution is not available, or what to know. */
	char attribution_note[256];
	uint32_t stack_depth;
	/* Source locations known, and those that found the table full. */
	uint64_t locations, locations_dropped;
	/* How often somebody replaced our signal handler. */
	uint64_t handler_lost;
	/* Hardware watchpoints that the process may use, and regions that have one. */
	struct {
		uint32_t available, used;
		/* Writes told, and writes merged into a later event for want of a hit. */
		uint64_t hits, missed;
	} watchpoints;
	/* Forks since the watcher was opened whose children nobody watches: see memwatch_options.follows_forks. */
	uint64_t forks_unwatched;
};

/* Fills in the numbers of a watcher and of the engine that it shares with others, as they are now. */
MEMWATCH_API int memwatch_stats_get_sized(memwatch *watcher, struct memwatch_stats *ret_stats, size_t struct_bytes);
MEMWATCH_INLINE int memwatch_stats_get(memwatch *watcher, struct memwatch_stats *ret_stats)
{
	return memwatch_stats_get_sized(watcher, ret_stats, sizeof(struct memwatch_stats));
}

/*
 * Fills up to `n` infos: those that `auto` tries, then those that it does not; returns how many there are. Without a
 * `watcher` they are probed.
 */
MEMWATCH_API int memwatch_backend_list_sized(memwatch *watcher, struct memwatch_backend_info *infos, size_t n,
					     size_t struct_bytes);
MEMWATCH_INLINE int memwatch_backend_list(memwatch *watcher, struct memwatch_backend_info *infos, size_t n)
{
	return memwatch_backend_list_sized(watcher, infos, n, sizeof(struct memwatch_backend_info));
}

/* Fills up to `n` infos of the open sinks; returns how many there are. */
MEMWATCH_API int memwatch_sink_list_sized(memwatch *watcher, struct memwatch_sink_info *infos, size_t n,
					  size_t struct_bytes);
MEMWATCH_INLINE int memwatch_sink_list(memwatch *watcher, struct memwatch_sink_info *infos, size_t n)
{
	return memwatch_sink_list_sized(watcher, infos, n, sizeof(struct memwatch_sink_info));
}

#ifdef __cplusplus
}
#endif
#endif
