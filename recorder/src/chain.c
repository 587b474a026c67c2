/*
 * chain.c -- DESIGN: how values are kept. Of each region the file has bases (the whole value after some seq, in chunks of a page)
 * and, between them, patches (the bytes an event wrote). The value after any event kept is the newest base up to it and the
 * patches since. A new base is made when the patches since the last one come to the value's own size, so that loading reads at
 * most about twice that; what eviction overtakes is folded into the oldest base (evict.c).
 *
 * Loss: a region's chain breaks when an event of it was missed, or carried neither patch nor value. Then the value is taken anew,
 * from the event, the watcher's history or the last bytes known, and what lies between is marked as lost: never a wrong value.
 */
#include "writer.h"

#include "complain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	VERSION_COST_BYTES = 64, /* a small patch's key and headers */
	BASE_AFTER_BYTES_MIN = 4096,
	BASE_SHARE = 8,            /* of the file: what one base may take, */
	BASE_MAX_BYTES = 64 << 20, /* and no more than this */
	BASES_EIGHTHS = 3          /* of the file: what all bases may take */
};

/* --- bases --- */

static uint64_t base_max_bytes(const struct writer *writer)
{
	uint64_t share = writer->max_bytes / BASE_SHARE;
	return share < BASE_MAX_BYTES ? share : BASE_MAX_BYTES;
}

/* Whether the file may take `n` more bytes of bases; older runs make room. */
static bool base_fits(struct writer *writer, uint64_t n)
{
	uint64_t limit = writer->max_bytes / 8 * BASES_EIGHTHS, cost = codec_base_cost(n);
	if (n > base_max_bytes(writer))
		return false;
	while (writer->progress.other_bases_bytes + writer->progress.record.bases_bytes + cost > limit)
		if (evict_run(writer) != 1)
			return false;
	return true;
}

static int put_chunks(struct writer *writer, const struct known *known, uint32_t store, const uint8_t *bytes,
		      uint64_t n)
{
	uint32_t chunk = 0;
	for (uint64_t at = 0; at < n; at += CODEC_CHUNK_BYTES, chunk++) {
		size_t size = (size_t)(n - at < CODEC_CHUNK_BYTES ? n - at : CODEC_CHUNK_BYTES);
		out_begin(&writer->chunk);
		out_bytes(&writer->chunk, bytes + at, size);
		int error = table_put_record(&writer->table, key_chunk(writer->run, known->id, store, chunk),
					     &writer->chunk);
		if (error)
			return error;
	}
	return 0;
}

/* Stores the value after `seq`, which fits. */
static int put_base(struct writer *writer, struct known *known, uint64_t seq, uint64_t time_ns, const uint8_t *bytes,
		    uint64_t n)
{
	struct codec_region *region = &known->region;
	struct codec_base base = { .store = region->n_stores++, .size_bytes = n, .time_ns = time_ns };
	int error = put_chunks(writer, known, base.store, bytes, n);
	if (error)
		return error;
	region->since_base = 0;
	region->chain = CHAIN_WHOLE;
	region->chain_seq = seq;
	known->changed = true;
	writer->progress.record.bases_bytes += codec_base_cost(n);
	writer->progress.versions_written++;
	writer->new_bytes += codec_base_cost(n);
	codec_put_base(&writer->record, &base);
	return table_put_record(&writer->table, key_base(writer->run, known->id, seq), &writer->record);
}

/* --- versions --- */

static int put_version(struct writer *writer, const struct known *known, const struct memwatch_event *event,
		       enum version_kind kind)
{
	struct codec_version version = { .kind = kind, .time_ns = event->time_ns };
	codec_put_version(&writer->record, &version);
	writer->new_bytes += VERSION_COST_BYTES;
	return table_put_record(&writer->table, key_version(writer->run, known->id, event->seq, 0), &writer->record);
}

static int put_base_version(struct writer *writer, struct known *known, const struct memwatch_event *event,
			    const uint8_t *bytes, uint64_t n)
{
	int error = put_base(writer, known, event->seq, event->time_ns, bytes, n);
	return error ? error : put_version(writer, known, event, VERSION_BASE);
}

/* The patch in `writer->patch`, in parts. */
static int put_patch(struct writer *writer, struct known *known, const struct memwatch_event *event)
{
	const struct out *patch = &writer->patch;
	struct codec_version version = { .kind = VERSION_PATCH, .time_ns = event->time_ns, .data_bytes = patch->n };
	uint32_t part = 0;
	size_t at = 0;
	do {
		size_t n = patch->n - at < CODEC_PART_BYTES ? patch->n - at : CODEC_PART_BYTES;
		if (part == 0)
			codec_put_version(&writer->record, &version);
		else
			out_begin(&writer->record);
		out_bytes(&writer->record, patch->bytes + at, n);
		struct key key = key_version(writer->run, known->id, event->seq, part);
		int error = table_put_record(&writer->table, key, &writer->record);
		if (error)
			return error;
		at += n;
		part++;
	} while (at < patch->n);
	known->region.since_base += patch->n + VERSION_COST_BYTES;
	known->region.chain_seq = event->seq;
	writer->progress.versions_written++;
	writer->new_bytes += patch->n + VERSION_COST_BYTES;
	return 0;
}

static int put_version_lost(struct writer *writer, struct known *known, const struct memwatch_event *event)
{
	writer->progress.versions_skipped++;
	known->region.chain = CHAIN_BROKEN;
	return put_version(writer, known, event, VERSION_LOST);
}

/* --- where values come from --- */

static uint8_t *room(struct writer *writer, uint64_t n)
{
	if (n > base_max_bytes(writer))
		return NULL;
	if (n > writer->value_capacity) {
		uint8_t *value = realloc(writer->value, (size_t)n);
		if (!value)
			return NULL;
		writer->value = value;
		writer->value_capacity = (size_t)n;
	}
	return writer->value;
}

/* The version that a storage key names, from the watcher's history; NULL when it cannot be had. */
static const uint8_t *load(struct writer *writer, const struct memwatch_event *event, const char *key)
{
	uint8_t *value = key[0] ? room(writer, event->size_bytes) : NULL;
	if (!value)
		return NULL;
	int64_t n = memwatch_load(writer->watcher, key, value, (size_t)event->size_bytes);
	return n == (int64_t)event->size_bytes ? value : NULL;
}

static const uint8_t *new_value(struct writer *writer, const struct memwatch_event *event)
{
	return event->new_value ? event->new_value : load(writer, event, event->storage_key_new);
}

static void patch_from_event(struct writer *writer, const struct memwatch_event *event)
{
	uint64_t run[2];
	for (uint64_t at = 0; at < event->patch_bytes; at += sizeof run + run[1]) {
		memcpy(run, event->patch + at, sizeof run);
		patch_put(&writer->patch, run[0], event->patch + at + sizeof run, (size_t)run[1]);
	}
}

/* The same from the listed ranges, which cover all that changed. */
static void patch_from_value(struct writer *writer, const struct memwatch_event *event, const uint8_t *value)
{
	for (uint32_t i = 0; i < event->n_changes; i++) {
		const struct memwatch_range *range = &event->changes[i];
		patch_put(&writer->patch, range->offset, value + range->offset, (size_t)range->size_bytes);
	}
}

/* Makes the event's patch. False when that cannot be had, or would take too much of the file. */
static bool make_patch(struct writer *writer, const struct memwatch_event *event)
{
	const uint8_t *value = event->patch ? NULL : new_value(writer, event);
	writer->patch.n = 0;
	writer->patch.failed = false;
	if (event->patch)
		patch_from_event(writer, event);
	else if (value)
		patch_from_value(writer, event, value);
	else
		return false;
	return !writer->patch.failed && writer->patch.n <= base_max_bytes(writer);
}

/* --- an event --- */

/* Stores the value that a region's first event found, from where on it is known to have had it: since the run began, or the
 * region was watched, or events were missed, whatever came last. Of a region that is gone, only the moment is known. */
static int put_first_base(struct writer *writer, struct known *known, const struct memwatch_event *event,
			  const uint8_t *bytes)
{
	const struct progress *progress = &writer->progress;
	uint64_t seq = event->seq - 1, time_ns = event->time_ns;
	struct memwatch_region_info info;
	if (memwatch_region_info_get(writer->watcher, event->region_id, &info) == 0) {
		bool before = info.added_seq < progress->start_seq;
		seq = before ? progress->start_seq : info.added_seq;
		time_ns = before ? progress->record.start_ns : info.added_ns;
		if (progress->gap_last > seq) {
			seq = progress->gap_last;
			time_ns = event->time_ns;
		}
	}
	return put_base(writer, known, seq, time_ns, bytes, event->old_bytes);
}

/* There is no room for a base: what is written is kept all the same. */
static int go_on(struct writer *writer, struct known *known, const struct memwatch_event *event)
{
	writer->progress.versions_skipped++;
	if (!make_patch(writer, event))
		return put_version_lost(writer, known, event);
	known->region.chain = CHAIN_WHOLE;
	return put_patch(writer, known, event);
}

/* The chain is broken: the whole value, as it is after this event or, where that is gone, as it is now. */
static int take_anew(struct writer *writer, struct known *known, const struct memwatch_event *event)
{
	uint64_t seq;
	if (!base_fits(writer, event->new_bytes))
		return go_on(writer, known, event);
	const uint8_t *value = new_value(writer, event);
	if (value)
		return put_base_version(writer, known, event, value, event->new_bytes);
	int error = put_version_lost(writer, known, event);
	uint8_t *now = error ? NULL : room(writer, event->size_bytes);
	if (!now)
		return error;
	int64_t n = memwatch_region_snapshot(writer->watcher, event->region_id, now, (size_t)event->size_bytes, &seq);
	if (n != (int64_t)event->size_bytes || seq <= event->seq)
		return 0;
	return put_base(writer, known, seq, event->time_ns, now, (uint64_t)n);
}

/* A region's first event: the value before it, and what it wrote. */
static int begin(struct writer *writer, struct known *known, const struct memwatch_event *event)
{
	const uint8_t *value = event->old_value;
	known->region.chain = CHAIN_BROKEN;
	if (!base_fits(writer, event->old_bytes))
		return go_on(writer, known, event);
	if (!value)
		value = load(writer, event, event->storage_key_old);
	if (!value)
		return take_anew(writer, known, event);
	int error = put_first_base(writer, known, event, value);
	if (error)
		return error;
	return make_patch(writer, event) ? put_patch(writer, known, event) : take_anew(writer, known, event);
}

/* Whether it is time for a new base. */
static bool wants_base(const struct writer *writer, const struct known *known, const struct memwatch_event *event)
{
	uint64_t since = known->region.since_base + writer->patch.n;
	return since > (event->size_bytes > BASE_AFTER_BYTES_MIN ? event->size_bytes : BASE_AFTER_BYTES_MIN);
}

static int add_patch(struct writer *writer, struct known *known, const struct memwatch_event *event)
{
	if (wants_base(writer, known, event) && base_fits(writer, event->new_bytes)) {
		const uint8_t *value = new_value(writer, event);
		if (value)
			return put_base_version(writer, known, event, value, event->new_bytes);
	}
	return put_patch(writer, known, event);
}

/* A posted event: it shows whole values, of any size, or none. */
static int add_posted(struct writer *writer, struct known *known, const struct memwatch_event *event)
{
	const uint8_t *old = known->region.chain == CHAIN_NONE ? event->old_value : NULL;
	int error = 0;
	if (old && base_fits(writer, event->old_bytes))
		error = put_first_base(writer, known, event, old);
	known->region.chain = CHAIN_WHOLE;
	if (error)
		return error;
	if (!event->new_value)
		return put_version(writer, known, event, VERSION_NOTHING);
	if (!base_fits(writer, event->new_bytes))
		return put_version_lost(writer, known, event);
	return put_base_version(writer, known, event, event->new_value, event->new_bytes);
}

int chain_add(struct writer *writer, struct known *known, const struct memwatch_event *event)
{
	struct codec_region *region = &known->region;
	if (event->kind == MEMWATCH_EVENT_LOST)
		return 0;
	if (event->values != MEMWATCH_VALUES_FULL) {
		region->chain = CHAIN_HIDDEN;
		return 0;
	}
	if (!event->n_changes)
		return add_posted(writer, known, event);
	if (region->chain == CHAIN_NONE)
		return begin(writer, known, event);
	if (region->chain == CHAIN_WHOLE && event->seq <= region->chain_seq) {
		writer->progress.versions_skipped++; /* older than the base that was taken anew */
		return put_version(writer, known, event, VERSION_LOST);
	}
	if (writer->progress.gap_last > region->chain_seq)
		region->chain = CHAIN_BROKEN;
	if (region->chain == CHAIN_WHOLE && make_patch(writer, event))
		return add_patch(writer, known, event);
	return take_anew(writer, known, event);
}
