/*
 * codec.h -- the records of a recording: keys in order, values with a checksum.
 *
 * A key is a letter, the run's number, and what is below: numbers are big-endian, so that LMDB's order is theirs.
 *
 *   F                            the format
 *   R run                        struct codec_run
 *   L run first-seq              a gap: the last seq that was missed
 *   G run region                 struct codec_region
 *   E run seq                    an event
 *   V run region seq part        what an event did to the value: struct codec_version, then data in parts
 *   B run region seq             struct codec_base: the whole value after seq is in a store of chunks
 *   C run region store chunk     CODEC_CHUNK_BYTES of a value
 *
 * A value is four bytes of checksum and the record; numbers in it are variable-length, texts have their length and a NUL.
 * Nothing is larger than an overflow page of LMDB, but for events with unusually long locations.
 */
#ifndef CODEC_H
#define CODEC_H

#include <memwatch/recorder.h>

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	CODEC_KEY_MAX = 25,
	CODEC_CHUNK_BYTES = 4064, /* with its checksum and LMDB's header it fills one page */
	CODEC_PART_BYTES = 4032,  /* of a version's data, beside its header */
	CODEC_PREVIEW_BYTES = 256
};

/* --- keys --- */

struct key {
	uint8_t bytes[CODEC_KEY_MAX];
	uint8_t n;
};

struct key key_format(void);
struct key key_run(uint32_t run);
struct key key_gap(uint32_t run, uint64_t first_seq);
struct key key_region(uint32_t run, uint64_t region_id);
struct key key_event(uint32_t run, uint64_t seq);
struct key key_version(uint32_t run, uint64_t region_id, uint64_t seq, uint32_t part);
struct key key_base(uint32_t run, uint64_t region_id, uint64_t seq);
struct key key_chunk(uint32_t run, uint64_t region_id, uint32_t store, uint32_t chunk);

/* What stands at a place of a key that was read; 0 when it is too short. */
uint32_t key_run_of(const MDB_val *key);
uint64_t key_first_of(const MDB_val *key);  /* seq, region or gap, behind the run */
uint64_t key_second_of(const MDB_val *key); /* seq, behind the region */
uint32_t key_last_of(const MDB_val *key);   /* part, behind that */

/* Whether a key that was read begins with the first `n` bytes of `key`. */
bool key_has_prefix(const MDB_val *read, const struct key *key, size_t n);
MDB_val key_val(const struct key *key);

enum { KEY_RUN_BYTES = 5, KEY_REGION_BYTES = 13, KEY_SEQ_BYTES = 21 }; /* prefixes up to and with these */

/* --- writing and reading records --- */

struct out {
	uint8_t *bytes;
	size_t n, capacity;
	bool failed; /* no memory */
};

void out_begin(struct out *out); /* leaves room for the checksum */
void out_number(struct out *out, uint64_t number);
void out_bytes(struct out *out, const void *bytes, size_t n);
void out_text(struct out *out, const char *text);
int out_seal(struct out *out, MDB_val *ret_value); /* 0 or -ENOMEM; the value lives until the next out_begin */
void out_fini(struct out *out);

struct in {
	const uint8_t *at, *end;
	bool failed; /* it was shorter or stranger than it should be */
};

/* Checks the checksum. -EBADMSG with the sentence. */
int in_begin(struct in *in, const MDB_val *value);
uint64_t in_number(struct in *in);
const uint8_t *in_bytes(struct in *in, size_t n); /* NULL when there are fewer */
const char *in_text(struct in *in);               /* "" on failure */
size_t in_left(const struct in *in);

/* --- records --- */

struct codec_run {
	uint64_t epoch, start_ns, end_ns, last_commit_ns, events_written, events_evicted, events_missed;
	uint64_t bases_bytes; /* in stores of chunks */
	int32_t pid;
	char program[64], host[64];
};

enum chain {
	CHAIN_NONE,   /* no event yet */
	CHAIN_WHOLE,  /* a patch may follow */
	CHAIN_BROKEN, /* the value after `chain_seq` is not known */
	CHAIN_HIDDEN  /* by its policy */
};

struct codec_region {
	struct memwatch_recording_region info; /* run, id and oldest_value_seq are not part of the record */
	enum chain chain;
	uint64_t chain_seq;
	uint64_t since_base; /* bytes of patches since the newest base */
	uint32_t n_stores;
};

enum version_kind { VERSION_PATCH, VERSION_BASE, VERSION_NOTHING, VERSION_LOST };

struct codec_version {
	enum version_kind kind;
	uint64_t time_ns;
	uint64_t data_bytes; /* of a patch, in all parts */
};

struct codec_base {
	uint32_t store;
	uint64_t size_bytes, time_ns;
};

/* What a base is counted as: its bytes, and about what its records take beside them. */
static inline uint64_t codec_base_cost(uint64_t size_bytes)
{
	return size_bytes + size_bytes / CODEC_CHUNK_BYTES * 32 + 128;
}

void codec_put_run(struct out *out, const struct codec_run *run);
void codec_put_region(struct out *out, const struct codec_region *region);
void codec_put_version(struct out *out, const struct codec_version *version);
void codec_put_base(struct out *out, const struct codec_base *base);
void codec_put_event(struct out *out, const struct memwatch_event *event);

/* 0 or -EBADMSG. */
int codec_get_run(const MDB_val *value, struct codec_run *ret_run);
int codec_get_region(const MDB_val *value, struct codec_region *ret_region);
int codec_get_version(const MDB_val *value, struct codec_version *ret_version, struct in *ret_data);
int codec_get_base(const MDB_val *value, struct codec_base *ret_base);
/* One block of memory; the format and shape are the region's. -ENOMEM too. */
int codec_get_event(const MDB_val *value, const struct codec_region *region, struct memwatch_recorded **ret_event);
/* What eviction needs of it. */
int codec_get_event_region(const MDB_val *value, uint64_t *ret_region_id, uint64_t *ret_time_ns);

/* --- patches: runs of (offset, size, bytes) --- */

void patch_put(struct out *out, uint64_t offset, const void *bytes, size_t n);
/* The next run, or false at the end (or on damage: in->failed). */
bool patch_next(struct in *in, uint64_t *ret_offset, const uint8_t **ret_bytes, size_t *ret_n);

#endif
