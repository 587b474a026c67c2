/*
 * json.c -- DESIGN: writes events and regions as JSON.
 *
 * Called on the HTTP thread, once for each event (lines.c keeps the result). Written straight into a text, no
 * tree in between: fifteen times as fast as cJSON, whose numbers are doubles that lose integers from 2^52 on. What a
 * region's policy hides is not in the event to begin with, so nothing here decides about secrecy.
 */
#include "json.h"

#include "number_json.h"

static const uint64_t ns_per_ms = 1000000;

/* --- members ---------------------------------------------------------------------------------------------------- */

void json_key(struct text *text, const char *name)
{
	if (text->n_bytes > 0 && text->data[text->n_bytes - 1] != '{')
		text_char(text, ',');
	text_char(text, '"');
	text_string(text, name);
	text_bytes(text, "\":", 2);
}

void json_string(struct text *text, const char *name, const char *value)
{
	json_key(text, name);
	text_json(text, value, strlen(value));
}

static void json_null(struct text *text, const char *name)
{
	json_key(text, name);
	text_bytes(text, "null", 4);
}

void json_string_or_null(struct text *text, const char *name, const char *value)
{
	if (!value || *value == '\0')
		json_null(text, name);
	else
		json_string(text, name, value);
}

void json_u64(struct text *text, const char *name, uint64_t value)
{
	json_key(text, name);
	text_u64(text, value);
}

void json_u64_or_null(struct text *text, const char *name, uint64_t value)
{
	if (value == 0)
		json_null(text, name);
	else
		json_u64(text, name, value);
}

void json_u64_string(struct text *text, const char *name, uint64_t value)
{
	json_key(text, name);
	text_char(text, '"');
	text_u64(text, value);
	text_char(text, '"');
}

static void json_hex_or_null(struct text *text, const char *name, uint64_t value)
{
	if (value == 0) {
		json_null(text, name);
		return;
	}
	json_key(text, name);
	text_char(text, '"');
	text_hex(text, value);
	text_char(text, '"');
}

static void json_bytes(struct text *text, const char *name, const uint8_t *bytes, uint64_t n_bytes)
{
	if (!bytes) {
		json_null(text, name);
		return;
	}
	json_key(text, name);
	text_char(text, '"');
	text_base64(text, bytes, n_bytes);
	text_char(text, '"');
}

static void json_shape(struct text *text, const uint64_t *shape, uint32_t n_dims)
{
	json_key(text, "shape");
	text_char(text, '[');
	for (uint32_t i = 0; i < n_dims; i++) {
		if (i > 0)
			text_char(text, ',');
		text_u64(text, shape[i]);
	}
	text_char(text, ']');
}

const char *json_values_text(enum memwatch_values values)
{
	static const char *const names[] = { "full", "preview", "hash", "none" };

	return (unsigned)values < sizeof names / sizeof names[0] ? names[values] : "none";
}

/* --- decoded items ---------------------------------------------------------------------------------------------- */

/* The bytes of old and new that an event carries from the region's start. */
struct known_bytes {
	const uint8_t *old_bytes, *new_bytes;
	uint64_t n_bytes;
};

static struct known_bytes known_bytes(const struct memwatch_event *event)
{
	uint64_t n_bytes = event->old_bytes < event->new_bytes ? event->old_bytes : event->new_bytes;
	if (event->old_value && event->new_value)
		return (struct known_bytes){ event->old_value, event->new_value, n_bytes };
	if (event->old_preview && event->new_preview)
		return (struct known_bytes){ event->old_preview, event->new_preview,
					     n_bytes < event->preview_bytes ? n_bytes : event->preview_bytes };
	return (struct known_bytes){ NULL, NULL, 0 };
}

/* The item's place in the region's shape, "[3,17]". */
static void json_index(struct text *text, const struct memwatch_event *event, uint64_t item)
{
	uint64_t index[MEMWATCH_DIMS_MAX];
	uint32_t n = event->n_dims;
	if (n == 0 || n > MEMWATCH_DIMS_MAX) {
		index[0] = item;
		n = 1;
	} else {
		for (uint32_t i = 0; i < n; i++) {
			uint32_t dim = event->fortran_order ? i : n - 1 - i;
			index[dim] = event->shape[dim] == 0 ? 0 : item % event->shape[dim];
			item = event->shape[dim] == 0 ? 0 : item / event->shape[dim];
		}
	}
	for (uint32_t i = 0; i < n; i++) {
		text_char(text, i == 0 ? '[' : ',');
		text_u64(text, index[i]);
	}
	text_char(text, ']');
}

/* One element by the event's format; a truth value as such. */
static void json_number(struct text *text, const struct memwatch_event *event, const uint8_t *item)
{
	union memwatch_number_value value = { 0 };
	enum memwatch_number number = memwatch_number_read(event->format, event->item_bytes, item, &value);
	if (strchr(event->format, '?'))
		text_string(text, value.as_uint ? "true" : "false");
	else
		number_json(text, number, &value);
}

/* A list of elements that is being written. */
struct elements {
	struct text *text;
	const struct memwatch_event *event;
	uint64_t next; /* the items before it have been looked at */
	int n;
};

static void json_element(struct elements *elements, uint64_t item, const uint8_t *old_item, const uint8_t *new_item)
{
	struct text *text = elements->text;
	const struct memwatch_event *event = elements->event;
	elements->next = item + 1;
	if (memcmp(old_item, new_item, event->item_bytes) == 0)
		return;
	if (elements->n++ > 0)
		text_char(text, ',');
	text_char(text, '{');
	json_key(text, "index");
	json_index(text, event, item);
	json_key(text, "old");
	json_number(text, event, old_item);
	json_key(text, "new");
	json_number(text, event, new_item);
	text_char(text, '}');
}

/* Those behind the known bytes. */
static void json_excerpt_elements(struct elements *elements)
{
	const struct memwatch_event *event = elements->event;
	const uint64_t width = event->item_bytes;
	uint64_t run[2]; /* offset and size */
	for (uint64_t at = 0; at < event->excerpt_bytes; at += run[1]) {
		memcpy(run, event->old_excerpt + at, sizeof run);
		at += sizeof run;
		for (uint64_t i = 0; i + width <= run[1] && elements->n < JSON_ELEMENTS_MAX; i += width)
			if ((run[0] + i) / width >= elements->next)
				json_element(elements, (run[0] + i) / width, event->old_excerpt + at + i,
					     event->new_excerpt + at + i);
	}
}

/* Lists the changed items that the event shows, at most JSON_ELEMENTS_MAX. */
static void json_elements(struct text *text, const struct memwatch_event *event, const struct known_bytes *known)
{
	const uint64_t width = event->item_bytes, n_known = known->n_bytes / width;
	struct elements elements = { .text = text, .event = event };
	json_key(text, "elements");
	text_char(text, '[');
	for (uint32_t i = 0; i < event->n_changes; i++) {
		uint64_t first = event->changes[i].offset / width;
		uint64_t end = (event->changes[i].offset + event->changes[i].size_bytes + width - 1) / width;
		for (uint64_t item = first > elements.next ? first : elements.next;
		     item < end && item < n_known && elements.n < JSON_ELEMENTS_MAX; item++)
			json_element(&elements, item, known->old_bytes + item * width, known->new_bytes + item * width);
	}
	json_excerpt_elements(&elements);
	text_char(text, ']');
}

/* Both sides of an event's only item: of what is known, or of the excerpt, whose runs are whole items. */
static bool only_item(const struct memwatch_event *event, struct known_bytes *known)
{
	uint64_t run[2]; /* offset and size */
	if (known->n_bytes >= event->item_bytes)
		return true;
	if (event->excerpt_bytes < sizeof run + event->item_bytes)
		return false;
	memcpy(run, event->old_excerpt, sizeof run);
	known->old_bytes = event->old_excerpt + sizeof run;
	known->new_bytes = event->new_excerpt + sizeof run;
	return run[0] == 0 && run[1] >= event->item_bytes;
}

static void json_decoded(struct text *text, const struct memwatch_event *event)
{
	static const uint8_t zeros[16];
	union memwatch_number_value value;
	if (event->old_number.number != MEMWATCH_NUMBER_NONE || event->new_number.number != MEMWATCH_NUMBER_NONE) {
		json_key(text, "old_number");
		number_json(text, event->old_number.number, &event->old_number.value);
		json_key(text, "new_number");
		number_json(text, event->new_number.number, &event->new_number.value);
		return;
	}
	struct known_bytes known = known_bytes(event);
	if (event->item_bytes == 0 || event->item_bytes > sizeof zeros ||
	    !memwatch_number_read(event->format, event->item_bytes, zeros, &value))
		return;
	if (event->size_bytes != event->item_bytes) {
		if (known.n_bytes >= event->item_bytes || event->excerpt_bytes)
			json_elements(text, event, &known);
		return;
	}
	if (!only_item(event, &known))
		return;
	json_key(text, "old_number");
	json_number(text, event, known.old_bytes);
	json_key(text, "new_number");
	json_number(text, event, known.new_bytes);
}

/* --- events ----------------------------------------------------------------------------------------------------- */

static void json_frame(struct text *text, const struct memwatch_frame *frame)
{
	json_string_or_null(text, "file", frame->file);
	json_string_or_null(text, "function", frame->function);
	json_u64_or_null(text, "line", frame->line > 0 ? (uint64_t)frame->line : 0);
}

static void json_writer(struct text *text, const struct memwatch_where *where)
{
	const struct memwatch_frame native = { where->native.file, where->native.function, where->native.line };
	json_hex_or_null(text, "fault_ip", where->fault_ip);
	json_hex_or_null(text, "fault_address", where->fault_address);
	json_frame(text, where->n_frames > 0 ? &where->frames[0] : &native);
	json_key(text, "frames");
	text_char(text, '[');
	for (uint32_t i = 0; i < where->n_frames; i++) {
		text_string(text, i == 0 ? "{" : ",{");
		json_frame(text, &where->frames[i]);
		text_char(text, '}');
	}
	text_char(text, ']');
	json_string_or_null(text, "symbol", where->symbol);
	json_string_or_null(text, "object", where->object);
	json_u64_or_null(text, "offset", where->offset);
	json_string_or_null(text, "native_file", where->native.file);
	json_u64_or_null(text, "native_line", where->native.line > 0 ? (uint64_t)where->native.line : 0);
	json_string_or_null(text, "libc_function", where->libc_function);
	json_u64_or_null(text, "thread_id", where->thread_id > 0 ? (uint64_t)where->thread_id : 0);
	json_string_or_null(text, "thread_name", where->thread_name);
}

void json_where(struct text *text, const struct memwatch_where *where)
{
	json_key(text, "where");
	text_char(text, '{');
	json_string(text, "attribution", memwatch_attribution_text(where->attribution));
	json_string_or_null(text, "reason", memwatch_reason_text(where->reason));
	json_writer(text, where);
	json_key(text, "page_writer");
	if (where->page_writer) {
		text_char(text, '{');
		json_writer(text, where->page_writer);
		text_char(text, '}');
	} else {
		text_string(text, "null");
	}
	text_char(text, '}');
}

static void json_event_values(struct text *text, const struct memwatch_event *event, uint64_t value_max)
{
	uint64_t n_preview = event->preview_bytes;
	json_bytes(text, "old", event->old_bytes <= value_max ? event->old_value : NULL, event->old_bytes);
	json_bytes(text, "new", event->new_bytes <= value_max ? event->new_value : NULL, event->new_bytes);
	json_decoded(text, event);
	json_bytes(text, "old_preview", event->old_preview,
		   event->old_bytes < n_preview ? event->old_bytes : n_preview);
	json_bytes(text, "new_preview", event->new_preview,
		   event->new_bytes < n_preview ? event->new_bytes : n_preview);
	json_string_or_null(text, "key_old", event->storage_key_old);
	json_string_or_null(text, "key_new", event->storage_key_new);
	if (event->values == MEMWATCH_VALUES_HASH) {
		json_hex_or_null(text, "old_hash", event->old_hash);
		json_hex_or_null(text, "new_hash", event->new_hash);
	}
}

/* Both sides have the same runs. */
static void json_excerpt(struct text *text, const struct memwatch_event *event)
{
	uint64_t run[2]; /* offset and size */
	if (!event->excerpt_bytes)
		return;
	json_key(text, "excerpt");
	for (uint64_t at = 0; at < event->excerpt_bytes; at += run[1]) {
		text_char(text, at == 0 ? '[' : ',');
		memcpy(run, event->old_excerpt + at, sizeof run);
		at += sizeof run;
		text_char(text, '[');
		text_u64(text, run[0]);
		text_string(text, ",\"");
		text_base64(text, event->old_excerpt + at, run[1]);
		text_string(text, "\",\"");
		text_base64(text, event->new_excerpt + at, run[1]);
		text_string(text, "\"]");
	}
	text_char(text, ']');
}

static void json_changes(struct text *text, const struct memwatch_event *event)
{
	json_u64(text, "changed_bytes", event->changed_bytes);
	json_key(text, "changes");
	text_char(text, '[');
	for (uint32_t i = 0; i < event->n_changes; i++) {
		text_string(text, i == 0 ? "[" : ",[");
		text_u64(text, event->changes[i].offset);
		text_char(text, ',');
		text_u64(text, event->changes[i].size_bytes);
		text_char(text, ']');
	}
	text_char(text, ']');
}

static void write_event(struct text *text, const struct memwatch_event *event, uint64_t value_max)
{
	text_char(text, '{');
	json_u64(text, "schema", JSON_SCHEMA);
	json_u64(text, "seq", event->seq);
	json_u64_string(text, "time_ns", event->time_ns);
	json_u64(text, "time_ms", event->time_ns / ns_per_ms);
	json_u64_string(text, "region_id", event->region_id);
	json_string(text, "name", event->name);
	json_string(text, "kind", event->kind == MEMWATCH_EVENT_LOST ? "lost" : "change");
	json_string(text, "backend", event->backend);
	json_u64(text, "size", event->size_bytes);
	json_string_or_null(text, "format", event->format);
	json_shape(text, event->shape, event->n_dims);
	json_key(text, "fortran_order");
	text_string(text, event->fortran_order ? "true" : "false");
	json_string(text, "values", json_values_text(event->values));
	json_event_values(text, event, value_max);
	json_excerpt(text, event);
	json_changes(text, event);
	json_u64(text, "merged", event->merged);
	json_where(text, &event->where);
	text_char(text, '}');
}

void json_event(struct text *text, const struct memwatch_event *event)
{
	write_event(text, event, JSON_VALUE_MAX);
}

void json_event_short(struct text *text, const struct memwatch_event *event)
{
	write_event(text, event, event->preview_bytes < JSON_VALUE_MAX ? event->preview_bytes : JSON_VALUE_MAX);
}

/* --- regions ---------------------------------------------------------------------------------------------------- */

static void json_region_value(struct text *text, const struct memwatch_region_info *info)
{
	if (info->number == MEMWATCH_NUMBER_NONE)
		return;
	json_key(text, "value");
	number_json(text, info->number, &info->value);
}

static void json_ledger(struct text *text, const struct memwatch_ledger *ledger)
{
	json_key(text, "ledger");
	text_char(text, '{');
	json_u64(text, "detected", ledger->detected);
	json_u64(text, "delivered", ledger->delivered);
	json_u64(text, "coalesced", ledger->coalesced);
	json_u64(text, "unchanged", ledger->unchanged);
	json_u64(text, "filtered", ledger->filtered);
	json_u64(text, "dropped", ledger->dropped);
	text_char(text, '}');
}

void json_region(struct text *text, const struct memwatch_region_info *info, const struct memwatch_event *last)
{
	text_char(text, '{');
	json_u64_string(text, "region_id", info->id);
	json_string(text, "name", info->name);
	json_u64(text, "size", info->size_bytes);
	json_string(text, "backend", info->backend);
	json_string(text, "values", json_values_text(info->values));
	json_string_or_null(text, "format", info->format);
	json_u64(text, "item_size", info->item_bytes);
	json_shape(text, info->shape, info->n_dims);
	json_region_value(text, info);
	json_u64(text, "last_seq", info->last_seq);
	json_u64_string(text, "last_time_ns", info->last_time_ns);
	json_u64(text, "last_time_ms", info->last_time_ns / ns_per_ms);
	json_ledger(text, &info->ledger);
	json_key(text, "last");
	if (last)
		json_event_short(text, last);
	else
		text_string(text, "null");
	text_char(text, '}');
}
