/*
 * engine.h -- the engine that all watchers of a process share, and its locks.
 *
 * `lock` guards regions, watchers, page sets, histories and everything that a pass uses. The worker holds it for a
 * pass, but lets others in between regions (engine_yield). Callers take it with engine_lock, which tells the worker to.
 *
 * `pass_lock` is taken before `lock`, and kept while a pass lets others have that: there is one pass at a time.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include "../base/backend.h"
#include "../base/hits.h"
#include "../base/region.h"
#include "../base/siphash.h"
#include "excerpt.h"
#include "gather.h"
#include "history.h"
#include "dispatcher.h"
#include "sink.h"
#include "who.h"

enum { WATCHERS_MAX = 255, THREAD_NAMES = 16, BACKENDS_MAX = 8 };

struct thread_name {
	int32_t thread_id;
	char text[20];
};

struct memwatch {
	_Atomic uint32_t inside; /* first: handle.c */
	struct engine *engine;
	uint32_t generation;           /* of forks, when it was opened */
	uint8_t index;                 /* in the engine */
	const struct backend *backend; /* that its regions ask for */
	bool patches, follows_forks;
	uint64_t forks_before; /* engine->n_forks when it was opened */
	uint32_t inline_threshold, preview_size;
	uint64_t epoch, start_time_ns;
	struct siphash_key hash_key; /* of the hashes that stand for hidden values; never leaves the process */
	uint64_t n_regions, tracked_bytes;
	struct memwatch_ledger ledger;
	uint64_t dropped_by[MEMWATCH_DROPS_ROOM], attribution_by[MEMWATCH_ATTRIBUTIONS_ROOM],
		reason_by[MEMWATCH_REASONS_ROOM];
	struct memwatch_histogram latency;
	struct log *log;
	struct history history;
	struct dispatcher *dispatcher; /* under callback_lock; NULL: no callback was ever set */
	pthread_mutex_t callback_lock;
};

/* What one pass uses, and what one hands to the next. Under pass_lock: whoever runs the pass. */
struct pass {
	struct span_list written, polled;
	struct span_list noted; /* those that a partial pass collects for their notes */
	struct span_list peeked;
	struct span_list unseen;    /* those of `written` that were open for a moment without trace */
	struct region_list touched; /* what it has to look at */
	uint8_t *head;              /* the old beginning of a region, before it is diffed */
	size_t head_capacity;
	struct excerpt excerpt;                 /* of the region that is told */
	uint64_t guarded[POINTS];               /* the old values of a guarded region's covered words */
	struct thread_name names[THREAD_NAMES]; /* of writers */
	uint64_t start_ns;                      /* CLOCK_REALTIME: when it began to collect */
	uint64_t n_read;                      /* how many notes the ring had been given when the last region was read */
	uint32_t check_slot, n_checked;       /* where the search for vanished memory goes on */
	uint64_t dropped_now, dropped_before; /* of the ring: when this full pass began, and the one before it */
	uint64_t last_full_ns, this_full_ns;  /* CLOCK_MONOTONIC: when the last full passes began */
	uint64_t tell_ns;                     /* CPU time that went into telling of changes of polled memory */
	bool touch_failed;  /* a touched region could not be listed or read: keep the spans for the next pass */
	bool silent_change; /* it found a change without a note */
};

struct engine {
	pthread_mutex_t lock;
	_Atomic int n_waiting; /* for `lock`: callers count themselves, the worker reads */
	struct ring ring;
	struct regions regions;
	struct memwatch *watchers[WATCHERS_MAX + 1];
	unsigned n_watchers;
	const struct backend *backends[BACKENDS_MAX]; /* those that are open */
	unsigned n_backends;
	const struct backend *fallback; /* takes the memory that the others cannot; always open */
	const struct source *source;    /* open, or NULL */
	enum memwatch_reason no_source; /* why there is none */
	const struct hit_source *hits;
	struct page_set *early; /* pages that were open again before the last pass over them had read them */
	uint64_t window_ns;
	double budget, poll_budget; /* shares of one core: attribution's, and that of looking at polled memory */
	struct guards *guards;      /* guard.c's own */
	struct precise *precise;    /* its own */
	struct region_list held;    /* regions with a held event */

	/* Requests; under `request_lock`. */
	pthread_mutex_t request_lock;
	pthread_cond_t pass_done;
	uint64_t asked, answered; /* tickets: a full pass that began after `asked` was raised sets `answered` */
	bool stopping;

	pthread_mutex_t pass_lock;
	pthread_t thread;
	struct pass pass;
	struct who who;       /* under pass_lock */
	struct diff diff;     /* under the lock */
	struct gather gather; /* under the lock */
	struct resolver *resolver;

	/* Shown in stats. */
	_Atomic uint64_t n_passes, n_pages_written, sweep_ns;
	_Atomic uint64_t n_forks; /* of the process */
};

/* Takes the lock, ahead of the worker. Blocks. */
void engine_lock(struct engine *engine);
void engine_unlock(struct engine *engine);
/*
 * Of a thread of the engine's. When it wakes on a CPU that a thread of the host uses, it waits for another CPU or the
 * next tick; its share stays the same.
 */
void engine_thread_begin(void);
/* On the worker, in the middle of a pass: lets those have the lock who wait for it. */
void engine_yield(struct engine *engine);

/*
 * The open backend that has the page of this address armed, or NULL; of two, the one that knows what was written. Under
 * the lock.
 */
const struct backend *engine_backend_of(const struct engine *engine, uint64_t address);

#endif
