/*
 * codec_event.c -- DESIGN: events as records, and back. A record's texts end in NUL, so an event that is read back is one block
 * of memory: the struct, its frames and ranges, and a copy of the record that its texts and previews point into.
 */
#include "codec.h"

#include "complain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HAD_OLD = 1, HAD_NEW = 2, HAS_OLD_PREVIEW = 4, HAS_NEW_PREVIEW = 8 };

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* --- writing --- */

static void put_frame(struct out *out, const struct memwatch_frame *frame)
{
	out_text(out, frame->file);
	out_text(out, frame->function);
	out_number(out, (uint32_t)frame->line);
}

static void put_where(struct out *out, const struct memwatch_where *where)
{
	out_number(out, where->attribution);
	out_number(out, where->reason);
	out_number(out, where->fault_ip);
	out_number(out, where->fault_address);
	out_number(out, (uint32_t)where->thread_id);
	out_text(out, where->thread_name ? where->thread_name : "");
	out_number(out, where->n_frames);
	for (uint32_t i = 0; i < where->n_frames; i++)
		put_frame(out, &where->frames[i]);
	out_text(out, where->symbol ? where->symbol : "");
	out_text(out, where->object ? where->object : "");
	out_number(out, where->offset);
	out_text(out, where->native.file ? where->native.file : "");
	out_number(out, (uint32_t)where->native.line);
}

static void put_preview(struct out *out, const uint8_t *preview, uint64_t preview_bytes, uint64_t value_bytes)
{
	uint64_t n = least(CODEC_PREVIEW_BYTES, least(preview_bytes, value_bytes));
	if (!preview)
		return;
	out_number(out, n);
	out_bytes(out, preview, n);
}

static void put_values(struct out *out, const struct memwatch_event *event)
{
	out_number(out, (event->old_value ? HAD_OLD : 0u) | (event->new_value ? HAD_NEW : 0u) |
				(event->old_preview ? HAS_OLD_PREVIEW : 0u) |
				(event->new_preview ? HAS_NEW_PREVIEW : 0u));
	put_preview(out, event->old_preview, event->preview_bytes, event->old_bytes);
	put_preview(out, event->new_preview, event->preview_bytes, event->new_bytes);
	out_text(out, event->storage_key_old);
	out_text(out, event->storage_key_new);
	out_number(out, event->old_hash);
	out_number(out, event->new_hash);
}

void codec_put_event(struct out *out, const struct memwatch_event *event)
{
	out_begin(out);
	out_number(out, event->region_id);
	out_number(out, event->time_ns);
	out_number(out, event->detected_ns);
	out_number(out, event->kind);
	out_text(out, event->backend ? event->backend : "");
	out_number(out, event->size_bytes);
	out_number(out, event->values);
	out_number(out, event->old_bytes);
	out_number(out, event->new_bytes);
	out_number(out, event->preview_bytes);
	put_values(out, event);
	out_number(out, event->changed_bytes);
	out_number(out, event->n_changes);
	for (uint32_t i = 0; i < event->n_changes; i++) {
		out_number(out, event->changes[i].offset);
		out_number(out, event->changes[i].size_bytes);
	}
	out_number(out, event->merged);
	put_where(out, &event->where);
}

/* --- reading --- */

struct block {
	struct memwatch_recorded recorded; /* first: it is what the caller frees */
	char name[MEMWATCH_NAME_MAX + 1];
	char format[sizeof((struct memwatch_recording_region *)0)->format];
	uint64_t shape[MEMWATCH_DIMS_MAX];
	struct memwatch_frame frames[MEMWATCH_STACK_MAX];
	struct memwatch_range ranges[MEMWATCH_CHANGES_MAX];
	uint8_t record[];
};

static void get_frame(struct in *in, struct memwatch_frame *frame)
{
	frame->file = in_text(in);
	frame->function = in_text(in);
	frame->line = (int)in_number(in);
}

static void get_where(struct in *in, struct block *block, struct memwatch_where *where)
{
	where->attribution = (enum memwatch_attribution)least(in_number(in), MEMWATCH_ATTRIBUTION_EXACT);
	where->reason = (enum memwatch_reason)least(in_number(in), MEMWATCH_REASONS - 1);
	where->fault_ip = in_number(in);
	where->fault_address = in_number(in);
	where->thread_id = (int32_t)in_number(in);
	where->thread_name = in_text(in);
	where->n_frames = (uint32_t)least(in_number(in), MEMWATCH_STACK_MAX);
	where->frames = block->frames;
	for (uint32_t i = 0; i < where->n_frames; i++)
		get_frame(in, &block->frames[i]);
	where->symbol = in_text(in);
	where->object = in_text(in);
	where->offset = in_number(in);
	where->native.file = in_text(in);
	where->native.function = where->symbol;
	where->native.line = (int)in_number(in);
}

static const uint8_t *get_preview(struct in *in, bool has)
{
	return has ? in_bytes(in, (size_t)least(in_number(in), SIZE_MAX)) : NULL;
}

static void get_key(struct in *in, char key[MEMWATCH_KEY_SIZE])
{
	const char *text = in_text(in);
	size_t n = strlen(text);
	if (n < MEMWATCH_KEY_SIZE)
		memcpy(key, text, n + 1);
	else
		in->failed = true;
}

static void get_values(struct in *in, struct memwatch_recorded *recorded)
{
	struct memwatch_event *event = &recorded->event;
	uint64_t flags = in_number(in);
	recorded->had_values = (flags & (HAD_OLD | HAD_NEW)) != 0;
	event->old_preview = get_preview(in, flags & HAS_OLD_PREVIEW);
	event->new_preview = get_preview(in, flags & HAS_NEW_PREVIEW);
	get_key(in, event->storage_key_old);
	get_key(in, event->storage_key_new);
	event->old_hash = in_number(in);
	event->new_hash = in_number(in);
}

static void get_changes(struct in *in, struct block *block, struct memwatch_event *event)
{
	event->changed_bytes = in_number(in);
	event->n_changes = (uint32_t)least(in_number(in), MEMWATCH_CHANGES_MAX);
	event->changes = block->ranges;
	for (uint32_t i = 0; i < event->n_changes; i++) {
		block->ranges[i].offset = in_number(in);
		block->ranges[i].size_bytes = in_number(in);
	}
	event->merged = in_number(in);
}

static void get_event(struct in *in, struct block *block)
{
	struct memwatch_event *event = &block->recorded.event;
	event->region_id = in_number(in);
	event->time_ns = in_number(in);
	event->detected_ns = in_number(in);
	event->kind = in_number(in) == MEMWATCH_EVENT_LOST ? MEMWATCH_EVENT_LOST : MEMWATCH_EVENT_CHANGE;
	event->backend = in_text(in);
	event->size_bytes = in_number(in);
	event->values = (enum memwatch_values)least(in_number(in), MEMWATCH_VALUES_NONE);
	event->old_bytes = in_number(in);
	event->new_bytes = in_number(in);
	event->preview_bytes = least(in_number(in), CODEC_PREVIEW_BYTES);
	get_values(in, &block->recorded);
	get_changes(in, block, event);
	get_where(in, block, &event->where);
}

static void name_event(struct block *block, const struct codec_region *region)
{
	struct memwatch_event *event = &block->recorded.event;
	const struct memwatch_recording_region *info = &region->info;
	memcpy(block->name, info->name, sizeof block->name);
	memcpy(block->format, info->format, sizeof block->format);
	memcpy(block->shape, info->shape, sizeof block->shape);
	event->name = block->name;
	event->format = block->format;
	event->shape = block->shape;
	event->n_dims = info->n_dims;
	event->item_bytes = info->item_bytes;
	event->fortran_order = info->fortran_order;
}

int codec_get_event(const MDB_val *value, const struct codec_region *region, struct memwatch_recorded **ret_event)
{
	struct block *block = calloc(1, sizeof *block + value->mv_size);
	MDB_val copy = { value->mv_size, block ? block->record : NULL };
	struct in in;
	if (!block)
		return complain(-ENOMEM, "no memory for an event");
	memcpy(block->record, value->mv_data, value->mv_size);
	int error = in_begin(&in, &copy);
	if (!error)
		get_event(&in, block);
	if (!error && in.failed)
		error = complain(-EBADMSG, "an event of the file is damaged");
	if (error) {
		free(block);
		return error;
	}
	name_event(block, region);
	*ret_event = &block->recorded;
	return 0;
}

int codec_get_event_region(const MDB_val *value, uint64_t *ret_region_id, uint64_t *ret_time_ns)
{
	struct in in;
	int error = in_begin(&in, value);
	if (error)
		return error;
	*ret_region_id = in_number(&in);
	*ret_time_ns = in_number(&in);
	return in.failed ? complain(-EBADMSG, "an event of the file is damaged") : 0;
}

void memwatch_recorded_free(struct memwatch_recorded *event)
{
	free(event);
}
