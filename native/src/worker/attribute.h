/*
 * attribute.h -- an event's author. Under the engine's lock.
 */
#ifndef ATTRIBUTE_H
#define ATTRIBUTE_H

#include "engine.h"

/* What is known of a write otherwise than by the notes of its window. */
struct author {
	bool by_notes;            /* nothing: ask them */
	const struct taken *note; /* NULL: nobody, for `reason` */
	enum memwatch_attribution attribution;
	enum memwatch_reason reason;
	uint64_t merged; /* earlier writes that the event stands for too */
};

/* Was what the diff has just found first written by another process or another mapping of the memory? */
bool attribute_is_foreign(const struct engine *engine, const struct region *region);
/* Fills in times and author of an event that the diff has just found. */
void attribute_event(struct engine *engine, struct memwatch *watcher, const struct region *region,
		     const struct author *author, struct event *event);

#endif
