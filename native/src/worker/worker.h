/*
 * worker.h -- the thread that turns written pages into events.
 */
#ifndef WORKER_H
#define WORKER_H

#include "engine.h"

int worker_start(struct engine *engine);
void worker_stop(struct engine *engine);

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
