/*
 * evict.c -- DESIGN: makes room before a commit, oldest event first over all runs. With an event goes what it did to its region's
 * value: the patch is folded into the region's oldest base, so that this is the value after the event and every event kept
 * can still be loaded. A region whose last event went, and that is not watched any more, goes as a whole; so does an older run
 * without events.
 */
#include "writer.h"

#include "complain.h"

#include <errno.h>
#include <string.h>

/* --- runs other than ours: their records are read and written back --- */

static void count_out(struct writer *writer, uint32_t run, uint64_t n_events, uint64_t bases_bytes)
{
	struct progress *progress = &writer->progress;
	struct codec_run other;
	MDB_val value;
	progress->events_evicted += n_events;
	if (run == writer->run) {
		progress->record.events_evicted += n_events;
		progress->record.bases_bytes -= bases_bytes;
		return;
	}
	progress->other_bases_bytes -= bases_bytes;
	if (table_get(&writer->table, key_run(run), &value) || codec_get_run(&value, &other))
		return;
	other.events_evicted += n_events;
	other.bases_bytes -= bases_bytes;
	codec_put_run(&writer->record, &other);
	table_put_record(&writer->table, key_run(run), &writer->record);
}

static int delete_run(struct writer *writer, uint32_t run)
{
	static const char letters[] = { 'E', 'V', 'B', 'C', 'G', 'L', 'R' };
	struct codec_run other = { 0 };
	MDB_val value;
	int error = table_get(&writer->table, key_run(run), &value);
	if (!error && codec_get_run(&value, &other) == 0) {
		writer->progress.other_bases_bytes -= other.bases_bytes;
		writer->progress.events_evicted += other.events_written - other.events_evicted;
	}
	for (unsigned i = 0; i < sizeof letters; i++) {
		struct key key = key_run(run);
		key.bytes[0] = (uint8_t)letters[i];
		error = table_delete_all(&writer->table, key, KEY_RUN_BYTES);
		if (error)
			return error;
	}
	return 0;
}

int evict_run(struct writer *writer)
{
	MDB_val key, value;
	int error = table_first(&writer->table, key_run(0), 1, &key, &value);
	uint32_t run = error ? 0 : key_run_of(&key);
	if (error == -ENOENT || (!error && run == writer->run))
		return 0;
	if (!error)
		error = delete_run(writer, run);
	return error ? error : 1;
}

/* --- bases --- */

static int delete_base(struct writer *writer, uint32_t run, uint64_t id, uint64_t seq, const struct codec_base *base)
{
	struct key store = key_chunk(run, id, base->store, 0);
	int error = table_delete_all(&writer->table, store, store.n - sizeof(uint32_t));
	if (!error)
		error = table_delete(&writer->table, key_base(run, id, seq));
	count_out(writer, run, 0, codec_base_cost(base->size_bytes));
	return error;
}

/* Deletes the region's bases before `seq`. */
static int delete_bases(struct writer *writer, uint32_t run, uint64_t id, uint64_t seq)
{
	struct codec_base base;
	MDB_val key, value;
	for (;;) {
		int error = table_first(&writer->table, key_base(run, id, 0), KEY_REGION_BYTES, &key, &value);
		if (error)
			return error == -ENOENT ? 0 : error;
		uint64_t base_seq = key_second_of(&key);
		if (base_seq >= seq)
			return 0;
		error = codec_get_base(&value, &base);
		if (error) /* its chunks go with the run */
			error = table_delete(&writer->table, key_base(run, id, base_seq));
		else
			error = delete_base(writer, run, id, base_seq, &base);
		if (error)
			return error;
	}
}

/* --- folding a patch into a base --- */

/* The chunk that is being changed, in `writer->chunk`. */
struct fold {
	struct writer *writer;
	uint32_t run, store;
	uint64_t id;
	int64_t chunk; /* -1: none */
};

static int put_chunk(struct fold *fold)
{
	struct writer *writer = fold->writer;
	if (fold->chunk < 0)
		return 0;
	struct key key = key_chunk(fold->run, fold->id, fold->store, (uint32_t)fold->chunk);
	fold->chunk = -1;
	return table_put_record(&writer->table, key, &writer->chunk);
}

static int get_chunk(struct fold *fold, uint32_t chunk)
{
	struct writer *writer = fold->writer;
	struct in in;
	MDB_val value;
	int error = fold->chunk == (int64_t)chunk ? 0 : put_chunk(fold);
	if (error || fold->chunk == (int64_t)chunk)
		return error;
	error = table_get(&writer->table, key_chunk(fold->run, fold->id, fold->store, chunk), &value);
	if (!error)
		error = in_begin(&in, &value);
	if (error)
		return -EBADMSG;
	out_begin(&writer->chunk);
	out_bytes(&writer->chunk, in.at, in_left(&in));
	fold->chunk = chunk;
	return writer->chunk.failed ? complain(-ENOMEM, "no memory to record") : 0;
}

static int fold_bytes(struct fold *fold, uint64_t offset, const uint8_t *bytes, size_t n)
{
	enum { CHECKSUM_BYTES = 4 };
	while (n) {
		size_t at = (size_t)(offset % CODEC_CHUNK_BYTES), size = CODEC_CHUNK_BYTES - at;
		int error = get_chunk(fold, (uint32_t)(offset / CODEC_CHUNK_BYTES));
		if (error)
			return error;
		size = size < n ? size : n;
		if (CHECKSUM_BYTES + at + size > fold->writer->chunk.n)
			return -EBADMSG;
		memcpy(fold->writer->chunk.bytes + CHECKSUM_BYTES + at, bytes, size);
		offset += size;
		bytes += size;
		n -= size;
	}
	return 0;
}

/* Applies the patch of version `seq` to the base before it, which becomes the base after it. -EBADMSG: they do not fit. */
static int fold_patch(struct writer *writer, uint32_t run, uint64_t id, uint64_t seq, uint64_t base_seq,
		      struct codec_base *base, const struct codec_version *version, struct in first)
{
	struct fold fold = { .writer = writer, .run = run, .store = base->store, .id = id, .chunk = -1 };
	uint64_t offset;
	const uint8_t *bytes;
	struct in patch;
	size_t n;
	/* The patch is copied out of the map: folding writes. */
	int error = table_patch(&writer->table, run, id, seq, version, first, &writer->scratch, &patch);
	if (!error && patch.at == first.at) {
		writer->scratch.n = 0;
		out_bytes(&writer->scratch, first.at, in_left(&first));
		if (writer->scratch.failed)
			return complain(-ENOMEM, "no memory to record");
		patch = (struct in){ .at = writer->scratch.bytes, .end = writer->scratch.bytes + writer->scratch.n };
	}
	while (!error && patch_next(&patch, &offset, &bytes, &n))
		error = fold_bytes(&fold, offset, bytes, n);
	if (!error)
		error = patch.failed ? -EBADMSG : put_chunk(&fold);
	if (!error)
		error = table_delete(&writer->table, key_base(run, id, base_seq));
	if (error)
		return error;
	base->time_ns = version->time_ns;
	codec_put_base(&writer->record, base);
	return table_put_record(&writer->table, key_base(run, id, seq), &writer->record);
}

/* Makes the region's oldest base the value after `seq`, or leaves none. */
static int raise_base(struct writer *writer, uint32_t run, uint64_t id, uint64_t seq, const MDB_val *version_value)
{
	struct codec_version version;
	struct codec_base base;
	MDB_val key, value;
	struct in data;
	if (codec_get_version(version_value, &version, &data) || version.kind != VERSION_PATCH)
		return delete_bases(writer, run, id, seq);
	int error = table_first(&writer->table, key_base(run, id, 0), KEY_REGION_BYTES, &key, &value);
	uint64_t base_seq = error ? 0 : key_second_of(&key);
	if (error == -ENOENT || (!error && base_seq >= seq))
		return 0;
	if (!error && codec_get_base(&value, &base) == 0)
		error = fold_patch(writer, run, id, seq, base_seq, &base, &version, data);
	else
		error = error ? error : -EBADMSG;
	return error == -EBADMSG ? delete_bases(writer, run, id, seq) : error;
}

/* --- events --- */

static int evict_version(struct writer *writer, uint32_t run, uint64_t id, uint64_t seq)
{
	struct key key = key_version(run, id, seq, 0);
	MDB_val value;
	int error = table_get(&writer->table, key, &value);
	if (error)
		return error == -ENOENT ? 0 : error;
	error = raise_base(writer, run, id, seq, &value);
	return error ? error : table_delete_all(&writer->table, key, KEY_SEQ_BYTES);
}

static bool is_watched(struct writer *writer, uint64_t id)
{
	struct memwatch_region_info info;
	return memwatch_region_info_get(writer->watcher, id, &info) == 0;
}

static int delete_region(struct writer *writer, uint32_t run, uint64_t id)
{
	int error = delete_bases(writer, run, id, UINT64_MAX);
	if (!error)
		error = table_delete_all(&writer->table, key_version(run, id, 0, 0), KEY_REGION_BYTES);
	if (!error)
		error = table_delete_all(&writer->table, key_chunk(run, id, 0, 0), KEY_REGION_BYTES);
	if (!error)
		error = table_delete(&writer->table, key_region(run, id));
	if (run == writer->run)
		writer_forget(writer, id);
	return error;
}

/* After the region's event `seq` went: the region goes too when that was its last one and nobody watches it. */
static int evict_region(struct writer *writer, uint32_t run, uint64_t id, uint64_t seq)
{
	struct codec_region region;
	struct known *known;
	MDB_val value;
	if (run == writer->run) {
		if (writer_known(writer, id, &known) == 0 && known->region.info.last_seq == seq &&
		    !is_watched(writer, id))
			return delete_region(writer, run, id);
		return 0;
	}
	if (table_get(&writer->table, key_region(run, id), &value) || codec_get_region(&value, &region))
		return 0;
	return region.info.last_seq == seq ? delete_region(writer, run, id) : 0;
}

static int evict_event(struct writer *writer, uint32_t run, uint64_t seq, const MDB_val *value)
{
	uint64_t id, time_ns;
	int damaged = codec_get_event_region(value, &id, &time_ns);
	int error = table_delete(&writer->table, key_event(run, seq));
	count_out(writer, run, 1, 0);
	if (!error && !damaged)
		error = evict_version(writer, run, id, seq);
	if (!error && !damaged)
		error = evict_region(writer, run, id, seq);
	return error;
}

/* The oldest event goes, with its run if that has no other. 1, 0 when only this run's newest is left. */
static int evict_oldest(struct writer *writer)
{
	MDB_val key, value;
	int error = table_first(&writer->table, key_run(0), 1, &key, &value);
	uint32_t run = error ? writer->run : key_run_of(&key);
	if (!error || error == -ENOENT)
		error = table_first(&writer->table, key_event(run, 0), KEY_RUN_BYTES, &key, &value);
	if (error == -ENOENT)
		return evict_run(writer);
	uint64_t seq = error ? 0 : key_first_of(&key);
	if (!error && run == writer->run && seq == writer->progress.last_seq)
		return 0;
	if (!error)
		error = evict_event(writer, run, seq, &value);
	return error ? error : 1;
}

int evict(struct writer *writer, unsigned percent)
{
	uint64_t limit = writer->max_bytes / 4096 * percent / 100;
	while (table_pages(&writer->table) > limit) {
		int result = evict_oldest(writer);
		if (result <= 0)
			return result;
	}
	return 0;
}
