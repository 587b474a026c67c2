/*
 * codec.c -- DESIGN: between records and bytes. Pure functions: what they write into is the caller's. Whatever is read back was
 * on a disk, so every length is checked against what is there.
 */
#include "codec.h"

#include "complain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { CHECKSUM_BYTES = 4, KEY_FIRST_AT = 5, KEY_SECOND_AT = 13, KEY_PART_AT = 21 };

/* --- keys --- */

static void key_add(struct key *key, uint64_t number, unsigned n_bytes)
{
	for (unsigned i = n_bytes; i-- > 0;)
		key->bytes[key->n++] = (uint8_t)(number >> 8 * i);
}

static struct key key_begin(char letter, uint32_t run)
{
	struct key key = { .bytes = { (uint8_t)letter }, .n = 1 };
	key_add(&key, run, 4);
	return key;
}

static struct key key_one(char letter, uint32_t run, uint64_t first)
{
	struct key key = key_begin(letter, run);
	key_add(&key, first, 8);
	return key;
}

struct key key_format(void)
{
	return (struct key){ .bytes = { 'F' }, .n = 1 };
}

struct key key_run(uint32_t run)
{
	return key_begin('R', run);
}

struct key key_gap(uint32_t run, uint64_t first_seq)
{
	return key_one('L', run, first_seq);
}

struct key key_region(uint32_t run, uint64_t region_id)
{
	return key_one('G', run, region_id);
}

struct key key_event(uint32_t run, uint64_t seq)
{
	return key_one('E', run, seq);
}

struct key key_base(uint32_t run, uint64_t region_id, uint64_t seq)
{
	struct key key = key_one('B', run, region_id);
	key_add(&key, seq, 8);
	return key;
}

struct key key_version(uint32_t run, uint64_t region_id, uint64_t seq, uint32_t part)
{
	struct key key = key_one('V', run, region_id);
	key_add(&key, seq, 8);
	key_add(&key, part, 4);
	return key;
}

struct key key_chunk(uint32_t run, uint64_t region_id, uint32_t store, uint32_t chunk)
{
	struct key key = key_one('C', run, region_id);
	key_add(&key, store, 4);
	key_add(&key, chunk, 4);
	return key;
}

static uint64_t key_number(const MDB_val *key, size_t at, unsigned n_bytes)
{
	const uint8_t *bytes = key->mv_data;
	uint64_t number = 0;
	if (key->mv_size < at + n_bytes)
		return 0;
	for (unsigned i = 0; i < n_bytes; i++)
		number = number << 8 | bytes[at + i];
	return number;
}

uint32_t key_run_of(const MDB_val *key)
{
	return (uint32_t)key_number(key, 1, 4);
}

uint64_t key_first_of(const MDB_val *key)
{
	return key_number(key, KEY_FIRST_AT, 8);
}

uint64_t key_second_of(const MDB_val *key)
{
	return key_number(key, KEY_SECOND_AT, 8);
}

uint32_t key_last_of(const MDB_val *key)
{
	return (uint32_t)key_number(key, KEY_PART_AT, 4);
}

bool key_has_prefix(const MDB_val *read, const struct key *key, size_t n)
{
	return read->mv_size >= n && memcmp(read->mv_data, key->bytes, n) == 0;
}

MDB_val key_val(const struct key *key)
{
	return (MDB_val){ key->n, (void *)key->bytes };
}

/* --- writing --- */

static bool out_room(struct out *out, size_t n)
{
	if (out->capacity - out->n >= n && out->bytes)
		return true;
	size_t capacity = (out->n + n) * 2 + 512;
	uint8_t *bytes = realloc(out->bytes, capacity);
	if (!bytes) {
		out->failed = true;
		return false;
	}
	out->bytes = bytes;
	out->capacity = capacity;
	return true;
}

void out_begin(struct out *out)
{
	static const uint8_t no_checksum[CHECKSUM_BYTES];
	out->n = 0;
	out->failed = false;
	out_bytes(out, no_checksum, sizeof no_checksum);
}

void out_bytes(struct out *out, const void *bytes, size_t n)
{
	if (!n || !out_room(out, n))
		return;
	memcpy(out->bytes + out->n, bytes, n);
	out->n += n;
}

void out_number(struct out *out, uint64_t number)
{
	uint8_t bytes[10];
	size_t n = 0;
	for (; number >= 0x80; number >>= 7)
		bytes[n++] = (uint8_t)(number | 0x80);
	bytes[n++] = (uint8_t)number;
	out_bytes(out, bytes, n);
}

void out_text(struct out *out, const char *text)
{
	size_t n = strlen(text);
	out_number(out, n);
	out_bytes(out, text, n + 1);
}

int out_seal(struct out *out, MDB_val *ret_value)
{
	if (out->failed)
		return complain(-ENOMEM, "no memory to record");
	uint32_t checksum = (uint32_t)XXH3_64bits(out->bytes + CHECKSUM_BYTES, out->n - CHECKSUM_BYTES);
	memcpy(out->bytes, &checksum, sizeof checksum);
	*ret_value = (MDB_val){ out->n, out->bytes };
	return 0;
}

void out_fini(struct out *out)
{
	free(out->bytes);
	*out = (struct out){ 0 };
}

/* --- reading --- */

static int damaged_record(void)
{
	return complain(-EBADMSG, "a record of the file is damaged");
}

int in_begin(struct in *in, const MDB_val *value)
{
	uint32_t checksum;
	if (value->mv_size < CHECKSUM_BYTES)
		return damaged_record();
	memcpy(&checksum, value->mv_data, sizeof checksum);
	in->at = (const uint8_t *)value->mv_data + CHECKSUM_BYTES;
	in->end = (const uint8_t *)value->mv_data + value->mv_size;
	in->failed = false;
	return checksum == (uint32_t)XXH3_64bits(in->at, in_left(in)) ? 0 : damaged_record();
}

size_t in_left(const struct in *in)
{
	return (size_t)(in->end - in->at);
}

uint64_t in_number(struct in *in)
{
	uint64_t number = 0;
	for (unsigned shift = 0; shift < 64 && in->at < in->end; shift += 7) {
		uint8_t byte = *in->at++;
		number |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return number;
	}
	in->failed = true;
	return 0;
}

const uint8_t *in_bytes(struct in *in, size_t n)
{
	const uint8_t *bytes = in->at;
	if (in->failed || n > in_left(in)) {
		in->failed = true;
		return NULL;
	}
	in->at += n;
	return bytes;
}

const char *in_text(struct in *in)
{
	uint64_t n = in_number(in);
	const uint8_t *bytes = n < SIZE_MAX ? in_bytes(in, (size_t)n + 1) : NULL;
	if (bytes && !bytes[n])
		return (const char *)bytes;
	in->failed = true;
	return "";
}

static void in_copy_text(struct in *in, char *to, size_t size)
{
	const char *text = in_text(in);
	size_t n = strlen(text);
	if (n >= size)
		n = size - 1;
	memcpy(to, text, n);
	to[n] = 0;
}

static int in_end(const struct in *in)
{
	return in->failed ? damaged_record() : 0;
}

/* --- runs, regions, versions, bases --- */

void codec_put_run(struct out *out, const struct codec_run *run)
{
	out_begin(out);
	out_number(out, run->epoch);
	out_number(out, run->start_ns);
	out_number(out, run->end_ns);
	out_number(out, run->last_commit_ns);
	out_number(out, run->events_written);
	out_number(out, run->events_evicted);
	out_number(out, run->events_missed);
	out_number(out, run->bases_bytes);
	out_number(out, (uint32_t)run->pid);
	out_text(out, run->program);
	out_text(out, run->host);
}

int codec_get_run(const MDB_val *value, struct codec_run *ret_run)
{
	struct in in;
	int error = in_begin(&in, value);
	if (error)
		return error;
	ret_run->epoch = in_number(&in);
	ret_run->start_ns = in_number(&in);
	ret_run->end_ns = in_number(&in);
	ret_run->last_commit_ns = in_number(&in);
	ret_run->events_written = in_number(&in);
	ret_run->events_evicted = in_number(&in);
	ret_run->events_missed = in_number(&in);
	ret_run->bases_bytes = in_number(&in);
	ret_run->pid = (int32_t)in_number(&in);
	in_copy_text(&in, ret_run->program, sizeof ret_run->program);
	in_copy_text(&in, ret_run->host, sizeof ret_run->host);
	return in_end(&in);
}

void codec_put_region(struct out *out, const struct codec_region *region)
{
	const struct memwatch_recording_region *info = &region->info;
	out_begin(out);
	out_text(out, info->name);
	out_text(out, info->format);
	out_number(out, info->size_bytes);
	out_number(out, info->item_bytes);
	out_number(out, info->n_dims);
	for (uint32_t i = 0; i < info->n_dims; i++)
		out_number(out, info->shape[i]);
	out_number(out, info->fortran_order != 0);
	out_number(out, info->values);
	out_number(out, info->first_seq);
	out_number(out, info->last_seq);
	out_number(out, info->last_time_ns);
	out_number(out, region->chain);
	out_number(out, region->chain_seq);
	out_number(out, region->since_base);
	out_number(out, region->n_stores);
}

int codec_get_region(const MDB_val *value, struct codec_region *ret_region)
{
	struct memwatch_recording_region *info = &ret_region->info;
	struct in in;
	int error = in_begin(&in, value);
	if (error)
		return error;
	memset(ret_region, 0, sizeof *ret_region);
	in_copy_text(&in, info->name, sizeof info->name);
	in_copy_text(&in, info->format, sizeof info->format);
	info->size_bytes = in_number(&in);
	info->item_bytes = in_number(&in);
	info->n_dims = (uint32_t)in_number(&in);
	if (info->n_dims > MEMWATCH_DIMS_MAX)
		return damaged_record();
	for (uint32_t i = 0; i < info->n_dims; i++)
		info->shape[i] = in_number(&in);
	info->fortran_order = (int)in_number(&in);
	info->values = (enum memwatch_values)in_number(&in);
	info->first_seq = in_number(&in);
	info->last_seq = in_number(&in);
	info->last_time_ns = in_number(&in);
	ret_region->chain = (enum chain)in_number(&in);
	ret_region->chain_seq = in_number(&in);
	ret_region->since_base = in_number(&in);
	ret_region->n_stores = (uint32_t)in_number(&in);
	return in_end(&in);
}

void codec_put_version(struct out *out, const struct codec_version *version)
{
	out_begin(out);
	out_number(out, version->kind);
	out_number(out, version->time_ns);
	out_number(out, version->data_bytes);
}

int codec_get_version(const MDB_val *value, struct codec_version *ret_version, struct in *ret_data)
{
	int error = in_begin(ret_data, value);
	if (error)
		return error;
	ret_version->kind = (enum version_kind)in_number(ret_data);
	ret_version->time_ns = in_number(ret_data);
	ret_version->data_bytes = in_number(ret_data);
	return in_end(ret_data);
}

void codec_put_base(struct out *out, const struct codec_base *base)
{
	out_begin(out);
	out_number(out, base->store);
	out_number(out, base->size_bytes);
	out_number(out, base->time_ns);
}

int codec_get_base(const MDB_val *value, struct codec_base *ret_base)
{
	struct in in;
	int error = in_begin(&in, value);
	if (error)
		return error;
	ret_base->store = (uint32_t)in_number(&in);
	ret_base->size_bytes = in_number(&in);
	ret_base->time_ns = in_number(&in);
	return in_end(&in);
}

/* --- patches --- */

void patch_put(struct out *out, uint64_t offset, const void *bytes, size_t n)
{
	out_number(out, offset);
	out_number(out, n);
	out_bytes(out, bytes, n);
}

bool patch_next(struct in *in, uint64_t *ret_offset, const uint8_t **ret_bytes, size_t *ret_n)
{
	if (in->at >= in->end || in->failed)
		return false;
	uint64_t offset = in_number(in), n = in_number(in);
	const uint8_t *bytes = n <= in_left(in) ? in_bytes(in, (size_t)n) : NULL;
	if (!bytes || offset + n < offset) {
		in->failed = true;
		return false;
	}
	*ret_offset = offset;
	*ret_bytes = bytes;
	*ret_n = (size_t)n;
	return true;
}
