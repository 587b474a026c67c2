/*
 * lines.c -- DESIGN: the cache of serialised events.
 *
 * All clients are served by the one HTTP thread, so the cache has one owner and no lock: the first client
 * that comes to an event has it written, the others find it here. Nothing is written while nobody reads. A slot is
 * taken over by the event LINES_CAPACITY later, or emptied when the lines take more than LINES_BYTES_MAX; a client
 * that comes later has the event written again while the watcher's log still has it, and is told the gap when not.
 */
#include "lines.h"

#include "text/json.h"

#include <errno.h>
#include <stdlib.h>

void lines_init(struct lines *lines, memwatch *watcher)
{
	memset(lines, 0, sizeof *lines);
	lines->watcher = watcher;
}

void lines_fini(struct lines *lines)
{
	for (size_t i = 0; lines->slots && i < LINES_CAPACITY; i++)
		text_fini(&lines->slots[i].text);
	free(lines->slots);
	lines->slots = NULL;
}

static struct line *slot_of(struct lines *lines, uint64_t seq)
{
	return &lines->slots[seq % LINES_CAPACITY];
}

static void empty_slot(struct lines *lines, struct line *line)
{
	lines->n_bytes -= line->text.capacity;
	text_fini(&line->text);
	line->seq = 0;
}

/* Empties slots until the budget holds, but none of first..last. */
static void evict(struct lines *lines, uint64_t first, uint64_t last)
{
	for (size_t i = 0; i < LINES_CAPACITY && lines->n_bytes > LINES_BYTES_MAX; i++) {
		struct line *line = &lines->slots[lines->hand];
		lines->hand = (lines->hand + 1) % LINES_CAPACITY;
		if (line->seq < first || line->seq > last)
			empty_slot(lines, line);
	}
}

static int write_line(struct lines *lines, const struct memwatch_event *event)
{
	struct line *line = slot_of(lines, event->seq);
	struct text *text = &line->text;
	if (line->seq == event->seq)
		return 0;
	lines->n_bytes -= text->capacity;
	text->n_bytes = 0;
	json_event(text, event);
	line->json_bytes = text->n_bytes;
	line->name_bytes = strlen(event->name);
	text_bytes(text, event->name, line->name_bytes);
	lines->n_bytes += text->capacity;
	line->time_ms = event->time_ns / 1000000;
	line->region_id = event->region_id;
	line->seq = event->seq;
	if (text->failed) {
		empty_slot(lines, line);
		return -ENOMEM;
	}
	return 0;
}

/* Writes the lines of the next events after `since`. Returns the seq of the first, 0 when there is none. */
static int load(struct lines *lines, uint64_t since, uint64_t *ret_first)
{
	const struct memwatch_event *events[LINES_BATCH];
	struct memwatch_cursor cursor;
	int n = memwatch_events_read(lines->watcher, since, events, LINES_BATCH, &cursor), error = 0;
	if (n <= 0)
		return n;
	for (int i = 0; i < n; i++) {
		if (!error)
			error = write_line(lines, events[i]);
	}
	*ret_first = events[0]->seq;
	evict(lines, events[0]->seq, events[n - 1]->seq);
	for (int i = 0; i < n; i++)
		memwatch_event_unref(events[i]);
	return error ? error : n;
}

int lines_next(struct lines *lines, uint64_t since, const struct line **ret_line, uint64_t *ret_missed)
{
	uint64_t seq = since + 1;
	int n;
	if (!lines->slots)
		lines->slots = calloc(LINES_CAPACITY, sizeof *lines->slots);
	if (!lines->slots)
		return -ENOMEM;
	if (slot_of(lines, seq)->seq != seq) {
		n = load(lines, since, &seq);
		if (n <= 0)
			return n;
	}
	*ret_line = slot_of(lines, seq);
	*ret_missed = seq - since - 1;
	return 1;
}
