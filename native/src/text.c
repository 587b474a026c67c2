/*
 * text.c -- DESIGN: an event as a line for people. On its caller's thread, from the event alone; owns nothing.
 */
#include "base/base.h"

#include <memwatch/reader.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct line {
	char *text;
	size_t size, length; /* of what it has room for; of what it would be */
};

static void put(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct line *line, const char *format, ...)
{
	va_list args;
	bool fits = line->length < line->size;
	va_start(args, format);
	int n = vsnprintf(fits ? line->text + line->length : NULL, fits ? line->size - line->length : 0, format, args);
	va_end(args);
	line->length += n > 0 ? (size_t)n : 0;
}

/* What others have named, on one line. */
static void put_clean(struct line *line, const char *text)
{
	bool fits = line->length < line->size;
	line->length += memwatch_text_clean(text, fits ? line->text + line->length : NULL,
					    fits ? line->size - line->length : 0);
}

static bool put_number(struct line *line, enum memwatch_number number, union memwatch_number_value value)
{
	if (number == MEMWATCH_NUMBER_INT)
		put(line, "%" PRId64, value.as_int);
	else if (number == MEMWATCH_NUMBER_UINT)
		put(line, "%" PRIu64, value.as_uint);
	else if (number == MEMWATCH_NUMBER_DOUBLE)
		put(line, "%.17g", value.as_double);
	return number != MEMWATCH_NUMBER_NONE;
}

/* The first element that changed, where it is a number. False: there is none to show. */
static bool put_element(struct line *line, const struct memwatch_event *event)
{
	union memwatch_number_value before, now;
	uint64_t item = event->item_bytes;
	if (!*event->format || !item || !event->n_changes || !event->old_value || !event->new_value)
		return false;
	uint64_t i = event->changes->offset / item;
	if ((i + 1) * item > event->old_bytes || (i + 1) * item > event->new_bytes)
		return false;
	enum memwatch_number number =
		memwatch_number_read(event->format, (size_t)item, event->old_value + i * item, &before);
	if (!number || !memwatch_number_read(event->format, (size_t)item, event->new_value + i * item, &now))
		return false;
	if (event->size_bytes > item)
		put(line, "[%" PRIu64 "]", i);
	put(line, ": ");
	put_number(line, number, before);
	put(line, " -> ");
	put_number(line, number, now);
	return true;
}

static void put_writer(struct line *line, const struct memwatch_where *where)
{
	const struct memwatch_frame *frame = where->n_frames ? where->frames : &where->native;
	const char *function = *frame->function ? frame->function : where->symbol;
	put(line, " by ");
	put_clean(line, *function ? function : *where->object ? where->object : "unknown code");
	if (*frame->file) {
		put(line, " (");
		put_clean(line, frame->file);
		put(line, ":%d)", frame->line);
	}
	if (*where->libc_function) {
		put(line, " through ");
		put_clean(line, where->libc_function);
	}
	if (*where->thread_name) {
		put(line, ", thread ");
		put_clean(line, where->thread_name);
	}
}

static void put_where(struct line *line, const struct memwatch_where *where)
{
	if (where->attribution == MEMWATCH_ATTRIBUTION_EXACT) {
		put(line, ", written");
		put_writer(line, where);
	} else if (where->attribution == MEMWATCH_ATTRIBUTION_PAGE && where->page_writer) {
		put(line, ", writer unknown; the page was written");
		put_writer(line, where->page_writer);
	} else {
		put(line, ", writer unknown (%s)", memwatch_reason_text(where->reason));
	}
}

int memwatch_event_text(const struct memwatch_event *event, char *buffer, size_t size)
{
	struct line line = { buffer, buffer ? size : 0, 0 };
	if (!event)
		return error_set(-EINVAL, "the event is NULL");
	put_clean(&line, event->name);
	if (event->kind == MEMWATCH_EVENT_LOST) {
		put(&line, ": its memory is gone, and it is not watched any more");
		return (int)line.length;
	}
	bool shown = put_element(&line, event);
	uint64_t more = event->changed_bytes;
	if (!shown || event->n_changes > 1 || more > event->item_bytes)
		put(&line, "%s %" PRIu64 " byte%s changed", shown ? ";" : ":", more, more == 1 ? "" : "s");
	put_where(&line, &event->where);
	return (int)line.length;
}
