/*
 * value.c -- DESIGN: which version a name and a time mean, and its bytes: the newest base up to it, and the patches since. Only
 * the part of a value that was asked for is copied. Whatever is not certain (a gap, a lost version) is an error with a sentence,
 * never a value that might be another one. Runs on the caller's thread.
 */
#include "complain.h"
#include "recording.h"

#include <errno.h>
#include <string.h>

static unsigned long long number(uint64_t value)
{
	return (unsigned long long)value;
}

static int load_region(struct query *query, uint32_t run, uint64_t id, struct codec_region *ret_region)
{
	MDB_val value;
	int error = table_get(&query->table, key_region(run, id), &value);
	if (error == -ENOENT)
		return complain(error, "run %u has no region %llu", run, number(id));
	return error ? error : codec_get_region(&value, ret_region);
}

/* --- values --- */

struct value_query {
	struct query query;
	uint32_t run;
	uint64_t id, seq;
	uint8_t *buffer;
	size_t size;
	struct codec_region region;
	uint64_t base_seq, last_seq; /* of the base, of the last version applied */
	struct codec_base base;
	struct out scratch;
};

static int not_kept(struct value_query *value)
{
	const struct memwatch_recording_region *info = &value->region.info;
	MDB_val key, data;
	int error = table_first(&value->query.table, key_base(value->run, value->id, 0), KEY_REGION_BYTES, &key, &data);
	if (error)
		return complain(
			-ENOENT,
			"no value of \"%s\" is kept in run %u: it has %llu bytes, and the file had no room for that",
			info->name, value->run, number(info->size_bytes));
	return complain(-ENOENT, "\"%s\" after event %llu is not kept; the oldest kept is %llu", info->name,
			number(value->seq), number(key_second_of(&key)));
}

static int find_base(struct value_query *value)
{
	struct key key = key_base(value->run, value->id, value->seq);
	MDB_val found, data;
	int error = table_last(&value->query.table, key, KEY_REGION_BYTES, &found, &data);
	if (error == -ENOENT)
		return not_kept(value);
	value->base_seq = value->last_seq = error ? 0 : key_second_of(&found);
	return error ? error : codec_get_base(&data, &value->base);
}

/* Whether events were missed between the base and the version. */
static int check_gaps(struct value_query *value)
{
	struct key from = key_gap(value->run, 0);
	MDB_val key, data;
	struct in in;
	int error = table_first(&value->query.table, from, KEY_RUN_BYTES, &key, &data);
	for (; !error; error = table_next(&value->query.table, from, KEY_RUN_BYTES, &key, &data)) {
		uint64_t first = key_first_of(&key);
		if (first > value->seq)
			return 0;
		error = in_begin(&in, &data);
		uint64_t last = error ? 0 : in_number(&in);
		if (!error && last > value->base_seq)
			return complain(-ENOENT,
					"\"%s\" after event %llu is not known: events %llu to %llu were missed",
					value->region.info.name, number(value->seq), number(first), number(last));
		if (error)
			return error;
	}
	return error == -ENOENT ? 0 : error;
}

static int copy_base(struct value_query *value)
{
	size_t n = (size_t)(value->base.size_bytes < value->size ? value->base.size_bytes : value->size);
	uint32_t chunk = 0;
	for (size_t at = 0; at < n; at += CODEC_CHUNK_BYTES, chunk++) {
		size_t size = n - at < CODEC_CHUNK_BYTES ? n - at : CODEC_CHUNK_BYTES;
		MDB_val data;
		struct in in;
		int error = table_get(&value->query.table, key_chunk(value->run, value->id, value->base.store, chunk),
				      &data);
		if (!error)
			error = in_begin(&in, &data);
		if (error || in_left(&in) < size)
			return complain(-EBADMSG, "a part of \"%s\" is damaged", value->region.info.name);
		memcpy(value->buffer + at, in.at, size);
	}
	return 0;
}

static int apply_patch(struct value_query *value, uint64_t seq, const struct codec_version *version, struct in first)
{
	struct in patch;
	const uint8_t *bytes;
	uint64_t offset;
	size_t n;
	int error =
		table_patch(&value->query.table, value->run, value->id, seq, version, first, &value->scratch, &patch);
	while (!error && patch_next(&patch, &offset, &bytes, &n))
		if (offset < value->size)
			memcpy(value->buffer + offset, bytes,
			       n < value->size - offset ? n : (size_t)(value->size - offset));
	if (!error && patch.failed)
		return complain(-EBADMSG, "version %llu of \"%s\" is damaged", number(seq), value->region.info.name);
	return error;
}

static int apply_version(struct value_query *value, uint64_t seq, const MDB_val *data)
{
	struct codec_version version;
	struct in in;
	int error = codec_get_version(data, &version, &in);
	if (error)
		return error;
	switch (version.kind) {
	case VERSION_PATCH: return apply_patch(value, seq, &version, in);
	case VERSION_NOTHING:
		return complain(-ENODATA, "\"%s\" had no value after event %llu", value->region.info.name, number(seq));
	case VERSION_LOST:
		return complain(-ENOENT, "\"%s\" after event %llu is not known: it could not be read in time",
				value->region.info.name, number(seq));
	case VERSION_BASE: break;
	}
	return complain(-EBADMSG, "version %llu of \"%s\" has lost its base", number(seq), value->region.info.name);
}

/* Applies the versions behind the base. A version's further parts lie between; the cursor is set anew for each version, for patches
 * are read with it. */
static int apply_versions(struct value_query *value)
{
	MDB_val key, data;
	while (value->last_seq < value->seq) {
		struct key from = key_version(value->run, value->id, value->last_seq + 1, 0);
		int error = table_first(&value->query.table, from, KEY_REGION_BYTES, &key, &data);
		if (error || key_second_of(&key) > value->seq)
			return error == -ENOENT ? 0 : error;
		value->last_seq = key_second_of(&key);
		error = apply_version(value, value->last_seq, &data);
		if (error)
			return error;
	}
	return 0;
}

static int read_value(struct query *query)
{
	struct value_query *value = (struct value_query *)query;
	int error = load_region(query, value->run, value->id, &value->region);
	if (error)
		return error;
	if (value->region.info.values != MEMWATCH_VALUES_FULL)
		return complain(-EACCES, "the values of \"%s\" were not recorded: its policy is not full",
				value->region.info.name);
	error = find_base(value);
	if (!error)
		error = check_gaps(value);
	if (!error && value->size > value->base.size_bytes)
		value->size = (size_t)value->base.size_bytes;
	if (!error)
		error = copy_base(value);
	return error ? error : apply_versions(value);
}

int64_t memwatch_recording_value(memwatch_recording *recording, uint32_t run, uint64_t region_id, uint64_t seq,
				 void *buffer, size_t size)
{
	struct value_query value = { .run = run, .id = region_id, .seq = seq, .buffer = buffer, .size = size };
	int error = recording_query(recording, &value.query, read_value);
	out_fini(&value.scratch);
	return error ? error : (int64_t)value.base.size_bytes;
}

/* --- finding --- */

struct find_query {
	struct query query;
	const char *name;
	uint64_t seq, time_ns;
	bool found;
	uint64_t oldest_seq, oldest_ns; /* of the values of that name, when none is old enough */
	struct memwatch_recording_version version;
};

static bool is_early_enough(const struct find_query *find, uint64_t seq, uint64_t time_ns)
{
	return (!find->seq || seq <= find->seq) && (!find->time_ns || time_ns <= find->time_ns);
}

/* A version of a region of that name. The newest that is early enough wins. */
static bool offer(struct find_query *find, uint32_t run, uint64_t id, uint64_t seq, uint64_t time_ns)
{
	if (!is_early_enough(find, seq, time_ns)) {
		if (!find->oldest_ns || time_ns < find->oldest_ns) {
			find->oldest_ns = time_ns;
			find->oldest_seq = seq;
		}
		return false;
	}
	if (!find->found || find->version.run < run || seq > find->version.seq) {
		find->found = true;
		find->version = (struct memwatch_recording_version){ run, id, seq };
	}
	return true;
}

static int offer_versions(struct find_query *find, uint32_t run, uint64_t id)
{
	struct codec_version version;
	struct codec_base base;
	MDB_val key, value;
	struct in in;
	int error = table_first(&find->query.table, key_base(run, id, 0), KEY_REGION_BYTES, &key, &value);
	if (!error && codec_get_base(&value, &base) == 0)
		offer(find, run, id, key_second_of(&key), base.time_ns);
	struct key from = key_version(run, id, 0, 0);
	error = table_first(&find->query.table, from, KEY_REGION_BYTES, &key, &value);
	for (; !error; error = table_next(&find->query.table, from, KEY_REGION_BYTES, &key, &value))
		if (!key_last_of(&key) && codec_get_version(&value, &version, &in) == 0)
			offer(find, run, id, key_second_of(&key), version.time_ns);
	return error == -ENOENT ? 0 : error;
}

/* Its newest version that is early enough: where there is no limit, or the region's last is within it, no search is needed. */
static int offer_region(struct find_query *find, uint32_t run, uint64_t id, const struct codec_region *region)
{
	const struct memwatch_recording_region *info = &region->info;
	if (info->values != MEMWATCH_VALUES_FULL) {
		offer(find, run, id, find->seq ? find->seq : info->last_seq, 0);
		return 0;
	}
	if ((!find->seq && !find->time_ns) || (find->seq && info->last_seq <= find->seq)) {
		offer(find, run, id, info->last_seq, 0);
		return 0;
	}
	return offer_versions(find, run, id);
}

static int find_in_run(struct find_query *find, uint32_t run)
{
	uint64_t id = 0;
	struct codec_region region;
	MDB_val key, value;
	for (;;) {
		int error = table_first(&find->query.table, key_region(run, id + 1), KEY_RUN_BYTES, &key, &value);
		if (error)
			return error == -ENOENT ? 0 : error;
		id = key_first_of(&key);
		if (codec_get_region(&value, &region) || strcmp(region.info.name, find->name) != 0)
			continue;
		error = offer_region(find, run, id, &region);
		if (error)
			return error;
	}
}

/* From the newest run back. */
static int find_version(struct query *query)
{
	struct find_query *find = (struct find_query *)query;
	uint32_t run = find->version.run;
	MDB_val key, value;
	if (run)
		return find_in_run(find, run);
	for (run = UINT32_MAX; run && !find->found; run--) {
		int error = table_last(&query->table, key_run(run), 1, &key, &value);
		if (error)
			return error == -ENOENT ? 0 : error;
		run = key_run_of(&key);
		error = find_in_run(find, run);
		if (error)
			return error;
	}
	return 0;
}

int memwatch_recording_find(memwatch_recording *recording, uint32_t run, const char *name, uint64_t seq,
			    uint64_t time_ns, struct memwatch_recording_version *ret_version)
{
	struct find_query find = { .name = name, .seq = seq, .time_ns = seq ? 0 : time_ns, .version.run = run };
	int error = recording_query(recording, &find.query, find_version);
	if (error)
		return error;
	if (!find.found && find.oldest_ns)
		return complain(-ENOENT, "no version of \"%s\" that old is kept; the oldest is that after event %llu",
				name, number(find.oldest_seq));
	if (!find.found)
		return complain(-ENOENT, "no region named \"%s\" is recorded", name);
	*ret_version = find.version;
	return 0;
}
