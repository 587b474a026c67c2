/*
 * event.h -- making events: one block of memory each, reference-counted, immutable once it is in the log.
 */
#ifndef EVENT_H
#define EVENT_H

#include "base.h"

struct event {
	struct memwatch_event shown; /* first: the sinks' pointer is ours */
	_Atomic uint32_t n_refs;
	uint32_t size_bytes; /* of the block */
	uint8_t *free, *end; /* while it is made: room for what it points to */
	uint64_t named_ip;   /* the writer's own instruction, whose names are wanted; 0: none are */
	uint32_t stack;      /* the writer's, whose callers are wanted: see stack.h; 0: they are not, or not any more */
	bool is_unnamed;     /* it waits for them: see resolver.h. In the log, under its mutex */
	struct memwatch_where page_writer;
	struct memwatch_frame frames[MEMWATCH_STACK_MAX];
	struct memwatch_range ranges[];
};

/* An event with one reference and room for `n_ranges` ranges and `room` bytes. NULL without memory. */
struct event *event_new(size_t n_ranges, size_t room);
/*
 * What is to be filled with what is known of a writer, by the attribution of the event's `where`: that, or its
 * page_writer.
 */
struct memwatch_where *event_writer(struct event *event);
/* Room for `n` bytes, 8-aligned; NULL when it was not asked for. */
void *event_room(struct event *event, size_t n);
/* Copies text into the event; "" when there is no room. */
const char *event_text(struct event *event, const char *text);
void *event_bytes(struct event *event, const void *bytes, size_t n);

#endif
