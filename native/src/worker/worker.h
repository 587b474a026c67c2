/*
 * worker.h -- the engine that all watchers of a process share, and the thread that turns written pages into events.
 *
 * `lock` guards regions, watchers, page sets, histories and everything that a pass uses. The worker holds it for a pass, but
 * lets others in between regions (worker_yield). Callers take it with worker_lock, which tells the worker to.
 */
#ifndef WORKER_H
#define WORKER_H

#include "../base/backend.h"
#include "../base/region.h"
#include "diff.h"
#include "history.h"
#include "precise.h"
#include "sink.h"
#include "symbol.h"
#include "who.h"

enum { WATCHERS_MAX = 255, THREAD_NAMES = 16 };

struct thread_name {
	int32_t thread_id;
	char text[20];
};

struct memwatch {
	struct engine *engine;
	uint32_t generation; /* of forks, when it was opened */
	uint8_t index;       /* in the engine */
	uint8_t backend;     /* enum backend_id that its regions ask for */
	bool strict;         /* asked for by name */
	bool patches;
	uint32_t inline_threshold, preview_size;
	uint64_t epoch, start_time_ns;
	uint64_t n_regions, tracked_bytes;
	struct memwatch_ledger ledger;
	uint64_t dropped_by[MEMWATCH_DROPS], attribution_by[3], reason_by[MEMWATCH_REASONS];
	struct memwatch_histogram latency;
	struct log *log;
	struct history history;
	struct dispatcher dispatcher;
	pthread_mutex_t callback_lock;
};

struct engine {
	pthread_mutex_t lock;
	_Atomic int n_waiting;
	struct ring ring;
	struct regions regions;
	struct memwatch *watchers[WATCHERS_MAX + 1];
	unsigned n_watchers;
	const struct backend *backends[BACKENDS]; /* those that are open, else NULL */
	const struct source *source;              /* open, or NULL */
	enum memwatch_reason no_source;           /* why there is none */
	const struct hit_source *hits;
	uint64_t window_ns;
	double budget;

	/* Requests; under `request_lock`. */
	pthread_mutex_t request_lock;
	pthread_cond_t pass_done;
	uint64_t asked, answered; /* tickets: a full pass that began after `asked` was raised sets `answered` */
	bool stopping;

	/* A pass's: under pass_lock, which is taken before `lock` and kept while a pass lets others have that. */
	pthread_mutex_t pass_lock;
	pthread_t thread;
	struct who who;
	struct precise precise; /* under the lock */
	struct diff diff;
	struct symbol_table *symbols;
	struct span_list written, polled;
	struct span_list noted;  /* those that a partial pass collects for their notes */
	struct span_list unseen; /* those of `written` that were open for a moment without trace */
	uint64_t *touched;       /* ids of regions that a pass has to look at */
	size_t n_touched, touched_capacity;
	uint8_t *head; /* the old beginning of a region, before it is diffed */
	size_t head_capacity;
	uint64_t *held; /* ids of regions with a held event */
	size_t n_held, held_capacity;
	uint32_t check_slot;                    /* where the search for vanished memory goes on */
	uint64_t dropped_now, dropped_before;   /* of the ring: when this full pass began, and the one before it */
	uint64_t last_full_ns, this_full_ns;    /* CLOCK_MONOTONIC: when the last full passes began */
	uint64_t handler_lost;                  /* what backends count of it */
	uint64_t pass_ns;                       /* CLOCK_REALTIME: when this pass began to collect */
	struct thread_name names[THREAD_NAMES]; /* of writers, for one pass */
	bool touch_failed;  /* no memory to list a touched region: keep the spans for the next pass */
	bool silent_change; /* this pass found a change without a note */

	/* Shown in stats. */
	_Atomic uint64_t n_passes, n_pages_written, sweep_ns;
};

int worker_start(struct engine *engine);
void worker_stop(struct engine *engine);

void worker_lock(struct engine *engine);
void worker_unlock(struct engine *engine);
void worker_yield(struct engine *engine);

/* Has a full pass look at everything, and waits for it. 0 or -ETIMEDOUT. Blocks; not with the lock. */
int worker_flush(struct engine *engine, uint64_t deadline_ns);
/* Looks at the pages of a span now, on the caller's thread. Blocks while a pass is under way; not with the lock. */
void worker_pass(struct engine *engine, struct span span);

/* Puts a region on the list of those with an event held back by max_rate; false without memory. */
bool worker_hold(struct engine *engine, struct region *region);

/* What is known of a write otherwise than by the notes of its window. */
struct author {
	bool by_notes;            /* nothing: ask them */
	const struct taken *note; /* NULL: nobody, for `reason` */
	bool ip_is_after;         /* the note's instruction pointer is that of the next instruction */
	enum memwatch_attribution attribution;
	enum memwatch_reason reason;
	uint64_t merged; /* earlier writes that the event stands for too */
};

/* --- emit.c: all under the lock --- */

/* Diffs one region over the written spans and makes its event. On the worker, or in place of it when a region is removed. */
void emit_region(struct engine *engine, struct region *region);
/* The region, which is small and has a full shadow, took a value: a detection with this author. */
void emit_value(struct engine *engine, struct region *region, const void *value, const struct author *author);
/* Lets the event go that max_rate holds back, if there is one. */
void emit_held(struct engine *engine, struct region *region);
/* The region's memory is gone: its last event, and its end. */
void emit_lost(struct engine *engine, struct region *region);
/* Gives an event to the sinks, which takes it over; the region has a meta. */
void emit_append(struct memwatch *watcher, struct region *region, struct event *event);
/* A detection is lost. */
void emit_drop(struct memwatch *watcher, struct region *region, enum memwatch_drop reason);
bool emit_span_holds(const struct span_list *list, uint64_t address);

/* attribute.c: fills in times and author of an event that the diff has just found. */
void attribute_event(struct engine *engine, struct memwatch *watcher, const struct region *region,
		     const struct author *author, struct event *event);

/* post.c: an event that somebody else found, for a region without memory. 0 or -ENOMEM. */
int emit_post(struct engine *engine, struct region *region, const struct memwatch_post *post, uint64_t *ret_seq);

#endif
