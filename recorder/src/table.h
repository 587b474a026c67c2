/*
 * table.h -- a recording's records inside a transaction. All functions return 0, -ENOENT where a record is looked for (without a
 * sentence), or -errno. What they return points into the map: until the next write in the transaction.
 */
#ifndef TABLE_H
#define TABLE_H

#include "codec.h"

struct table {
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_cursor *cursor;
};

int table_open(struct table *table, MDB_txn *txn, MDB_dbi dbi);
void table_close(struct table *table); /* before the transaction ends */

int table_put(struct table *table, struct key key, MDB_val value);
/* Seals the record that was put into `out` and stores it. */
int table_put_record(struct table *table, struct key key, struct out *out);
int table_get(struct table *table, struct key key, MDB_val *ret_value);
int table_delete(struct table *table, struct key key); /* 0 also when there is none */

/* The first record at `from` or behind it whose key has the same first `prefix_bytes`; the next one behind that. */
int table_first(struct table *table, struct key from, size_t prefix_bytes, MDB_val *ret_key, MDB_val *ret_value);
int table_next(struct table *table, struct key from, size_t prefix_bytes, MDB_val *ret_key, MDB_val *ret_value);
/* The last record at `to` or before it. */
int table_last(struct table *table, struct key to, size_t prefix_bytes, MDB_val *ret_key, MDB_val *ret_value);

/* Deletes all records whose keys have the first `prefix_bytes` of `key`. */
int table_delete_all(struct table *table, struct key key, size_t prefix_bytes);

/* The pages in use, the list of free ones included. */
uint64_t table_pages(struct table *table);

/* Checks that the file is a recording of this version. 1; 0: it is empty; -EPROTO. */
int table_check_format(struct table *table);
int table_put_format(struct table *table);

/* --- what readers and eviction share --- */

/* Reads a patch whose part 0 is `first`, part by part, into `scratch`; `*ret_patch` reads from there. */
int table_patch(struct table *table, uint32_t run, uint64_t region_id, uint64_t seq,
		const struct codec_version *version, struct in first, struct out *scratch, struct in *ret_patch);

#endif
