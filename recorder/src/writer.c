/*
 * writer.c -- DESIGN: one run's records: the run itself, gaps, events, regions. Regions are cached, for an event needs its
 * region's state; the cache is only that, so a transaction that fails empties it and is forgotten. What values go through is
 * chain.c, what makes room is evict.c.
 */
#include "writer.h"

#include "complain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { KEPT_BUFFER_BYTES = 1 << 20 };

/* --- regions --- */

static struct known **bucket(struct writer *writer, uint64_t id)
{
	return &writer->known[(id ^ id >> 32) % KNOWN_BUCKETS];
}

static struct known *remember(struct writer *writer, uint64_t id)
{
	struct known *known = calloc(1, sizeof *known);
	if (!known)
		return NULL;
	known->id = id;
	known->next = *bucket(writer, id);
	*bucket(writer, id) = known;
	writer->progress.n_known++;
	return known;
}

int writer_known(struct writer *writer, uint64_t id, struct known **ret_known)
{
	MDB_val value;
	struct codec_region region;
	struct known *known = *bucket(writer, id);
	while (known && known->id != id)
		known = known->next;
	if (!known) {
		int error = table_get(&writer->table, key_region(writer->run, id), &value);
		if (!error)
			error = codec_get_region(&value, &region);
		if (error)
			return error;
		known = remember(writer, id);
		if (!known)
			return complain(-ENOMEM, "no memory to record");
		known->region = region;
	}
	*ret_known = known;
	return 0;
}

void writer_forget(struct writer *writer, uint64_t id)
{
	struct known **link = bucket(writer, id);
	while (*link && (*link)->id != id)
		link = &(*link)->next;
	struct known *known = *link;
	if (!known)
		return;
	*link = known->next;
	free(known);
	writer->progress.n_known--;
}

static void forget_all(struct writer *writer)
{
	for (unsigned i = 0; i < KNOWN_BUCKETS; i++)
		while (writer->known[i])
			writer_forget(writer, writer->known[i]->id);
}

static void describe(struct memwatch_recording_region *info, const struct memwatch_event *event)
{
	size_t name_bytes = strnlen(event->name, sizeof info->name - 1);
	memcpy(info->name, event->name, name_bytes);
	if (event->format && strlen(event->format) < sizeof info->format)
		strcpy(info->format, event->format);
	info->size_bytes = event->size_bytes;
	info->item_bytes = event->item_bytes;
	info->n_dims = event->n_dims;
	for (uint32_t i = 0; i < event->n_dims; i++)
		info->shape[i] = event->shape[i];
	info->fortran_order = event->fortran_order;
	info->values = event->values;
	info->first_seq = event->seq;
}

/* The event's region, from its first event on. */
static int region_of(struct writer *writer, const struct memwatch_event *event, struct known **ret_known)
{
	int error = writer_known(writer, event->region_id, ret_known);
	if (error != -ENOENT)
		return error;
	struct known *known = remember(writer, event->region_id);
	if (!known)
		return complain(-ENOMEM, "no memory to record");
	describe(&known->region.info, event);
	*ret_known = known;
	return 0;
}

/* --- the run --- */

static int put_run(struct writer *writer)
{
	codec_put_run(&writer->record, &writer->progress.record);
	return table_put_record(&writer->table, key_run(writer->run), &writer->record);
}

/* What the values of older runs take, and how many runs there are. */
static int count_runs(struct writer *writer, uint32_t *ret_newest, uint32_t *ret_n)
{
	struct key from = key_run(0);
	struct codec_run run;
	MDB_val key, value;
	*ret_n = *ret_newest = 0;
	writer->progress.other_bases_bytes = 0;
	int error = table_first(&writer->table, from, 1, &key, &value);
	for (; !error; error = table_next(&writer->table, from, 1, &key, &value)) {
		*ret_newest = key_run_of(&key);
		++*ret_n;
		if (codec_get_run(&value, &run) == 0)
			writer->progress.other_bases_bytes += run.bases_bytes;
	}
	return error == -ENOENT ? 0 : error;
}

int writer_begin(struct writer *writer, uint32_t keep_runs)
{
	uint32_t newest, n;
	int error = table_check_format(&writer->table);
	if (error == 0)
		error = table_put_format(&writer->table);
	if (error < 0)
		return error;
	error = count_runs(writer, &newest, &n);
	writer->run = newest + 1;
	for (; !error && keep_runs && n >= keep_runs; n--)
		error = evict_run(writer) < 0 ? -EIO : 0;
	return error ? error : put_run(writer);
}

int writer_end(struct writer *writer)
{
	for (unsigned i = 0; i < KNOWN_BUCKETS; i++)
		for (struct known *known = writer->known[i]; known; known = known->next) {
			if (!known->changed)
				continue;
			codec_put_region(&writer->record, &known->region);
			int error =
				table_put_record(&writer->table, key_region(writer->run, known->id), &writer->record);
			if (error)
				return error;
			known->changed = false;
		}
	return put_run(writer);
}

/* --- events --- */

static int note_gap(struct writer *writer, uint64_t next_seq)
{
	struct progress *progress = &writer->progress;
	uint64_t first = progress->last_seq + 1;
	if (next_seq <= first)
		return 0;
	progress->gap_last = next_seq - 1;
	progress->record.events_missed += next_seq - first;
	out_begin(&writer->record);
	out_number(&writer->record, progress->gap_last);
	return table_put_record(&writer->table, key_gap(writer->run, first), &writer->record);
}

int writer_add(struct writer *writer, const struct memwatch_event *event)
{
	struct known *known = NULL;
	int error = note_gap(writer, event->seq);
	if (error)
		return error;
	error = region_of(writer, event, &known);
	if (error || !known)
		return error;
	error = chain_add(writer, known, event);
	if (error)
		return error;
	codec_put_event(&writer->record, event);
	writer->new_bytes += writer->record.n;
	error = table_put_record(&writer->table, key_event(writer->run, event->seq), &writer->record);
	known->region.info.last_seq = event->seq;
	known->region.info.last_time_ns = event->time_ns;
	known->changed = true;
	writer->progress.last_seq = event->seq;
	writer->progress.record.events_written++;
	return error;
}

void writer_undo(struct writer *writer, const struct progress *before)
{
	forget_all(writer);
	writer->progress = *before;
	writer->progress.n_known = 0;
}

void writer_trim(struct writer *writer)
{
	if (writer->progress.n_known > KNOWN_MAX)
		forget_all(writer);
	if (writer->value_capacity > KEPT_BUFFER_BYTES) {
		free(writer->value);
		writer->value = NULL;
		writer->value_capacity = 0;
	}
	if (writer->patch.capacity > KEPT_BUFFER_BYTES)
		out_fini(&writer->patch);
	if (writer->scratch.capacity > KEPT_BUFFER_BYTES)
		out_fini(&writer->scratch);
}

void writer_fini(struct writer *writer)
{
	forget_all(writer);
	free(writer->value);
	out_fini(&writer->record);
	out_fini(&writer->patch);
	out_fini(&writer->scratch);
	out_fini(&writer->chunk);
}
