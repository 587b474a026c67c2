/*
 * table.c -- DESIGN: the few ways in which records are stored, found and deleted, over one cursor. Runs inside the transaction of
 * whoever owns it; keeps nothing.
 */
#include "table.h"

#include "complain.h"

#include <errno.h>
#include <string.h>

#define FORMAT "memwatch recording 1"

int table_open(struct table *table, MDB_txn *txn, MDB_dbi dbi)
{
	*table = (struct table){ .txn = txn, .dbi = dbi };
	return complain_lmdb(mdb_cursor_open(txn, dbi, &table->cursor), "the file");
}

void table_close(struct table *table)
{
	mdb_cursor_close(table->cursor);
}

static int outcome(int result)
{
	return result == MDB_NOTFOUND ? -ENOENT : complain_lmdb(result, "the file");
}

int table_put(struct table *table, struct key key, MDB_val value)
{
	MDB_val name = key_val(&key);
	return outcome(mdb_put(table->txn, table->dbi, &name, &value, 0));
}

int table_put_record(struct table *table, struct key key, struct out *out)
{
	MDB_val value;
	int error = out_seal(out, &value);
	return error ? error : table_put(table, key, value);
}

int table_get(struct table *table, struct key key, MDB_val *ret_value)
{
	MDB_val name = key_val(&key);
	return outcome(mdb_get(table->txn, table->dbi, &name, ret_value));
}

int table_delete(struct table *table, struct key key)
{
	MDB_val name = key_val(&key);
	int error = outcome(mdb_del(table->txn, table->dbi, &name, NULL));
	return error == -ENOENT ? 0 : error;
}

int table_first(struct table *table, struct key from, size_t prefix_bytes, MDB_val *ret_key, MDB_val *ret_value)
{
	*ret_key = key_val(&from);
	int error = outcome(mdb_cursor_get(table->cursor, ret_key, ret_value, MDB_SET_RANGE));
	return !error && !key_has_prefix(ret_key, &from, prefix_bytes) ? -ENOENT : error;
}

int table_next(struct table *table, struct key from, size_t prefix_bytes, MDB_val *ret_key, MDB_val *ret_value)
{
	int error = outcome(mdb_cursor_get(table->cursor, ret_key, ret_value, MDB_NEXT));
	return !error && !key_has_prefix(ret_key, &from, prefix_bytes) ? -ENOENT : error;
}

int table_last(struct table *table, struct key to, size_t prefix_bytes, MDB_val *ret_key, MDB_val *ret_value)
{
	*ret_key = key_val(&to);
	int error = outcome(mdb_cursor_get(table->cursor, ret_key, ret_value, MDB_SET_RANGE));
	if (!error && key_has_prefix(ret_key, &to, to.n) && ret_key->mv_size == to.n)
		return 0;
	if (error && error != -ENOENT)
		return error;
	error = outcome(mdb_cursor_get(table->cursor, ret_key, ret_value, error ? MDB_LAST : MDB_PREV));
	return !error && !key_has_prefix(ret_key, &to, prefix_bytes) ? -ENOENT : error;
}

int table_delete_all(struct table *table, struct key key, size_t prefix_bytes)
{
	MDB_val name, value;
	for (;;) {
		key.n = (uint8_t)prefix_bytes;
		int error = table_first(table, key, prefix_bytes, &name, &value);
		if (error)
			return error == -ENOENT ? 0 : error;
		error = outcome(mdb_cursor_del(table->cursor, 0));
		if (error)
			return error;
	}
}

uint64_t table_pages(struct table *table)
{
	MDB_stat used = { 0 }, unused = { 0 };
	mdb_stat(table->txn, table->dbi, &used);
	mdb_stat(table->txn, 0, &unused);
	return 2 + used.ms_branch_pages + used.ms_leaf_pages + used.ms_overflow_pages + unused.ms_branch_pages +
	       unused.ms_leaf_pages + unused.ms_overflow_pages;
}

int table_check_format(struct table *table)
{
	MDB_val value, name;
	int error = table_get(table, key_format(), &value);
	if (!error)
		return value.mv_size == sizeof FORMAT - 1 && memcmp(value.mv_data, FORMAT, value.mv_size) == 0
			       ? 1
			       : complain(-EPROTO, "the file is a recording of another version than \"%s\"", FORMAT);
	if (error != -ENOENT)
		return error;
	error = table_first(table, (struct key){ .bytes = { 0 }, .n = 1 }, 0, &name, &value);
	return error == -ENOENT ? 0 : error ? error : complain(-EPROTO, "the file is a database, but no recording");
}

int table_put_format(struct table *table)
{
	return table_put(table, key_format(), (MDB_val){ sizeof FORMAT - 1, FORMAT });
}

int table_patch(struct table *table, uint32_t run, uint64_t region_id, uint64_t seq,
		const struct codec_version *version, struct in first, struct out *scratch, struct in *ret_patch)
{
	size_t n = in_left(&first);
	MDB_val value;
	struct in in;
	if (n == version->data_bytes) {
		*ret_patch = first;
		return 0;
	}
	scratch->n = 0;
	scratch->failed = false;
	out_bytes(scratch, first.at, n);
	for (uint32_t part = 1; scratch->n < version->data_bytes && !scratch->failed; part++) {
		int error = table_get(table, key_version(run, region_id, seq, part), &value);
		if (!error)
			error = in_begin(&in, &value);
		if (error)
			return complain(-EBADMSG, "a part of version %llu is damaged", (unsigned long long)seq);
		out_bytes(scratch, in.at, in_left(&in));
	}
	if (scratch->failed)
		return complain(-ENOMEM, "no memory for version %llu", (unsigned long long)seq);
	*ret_patch = (struct in){ .at = scratch->bytes, .end = scratch->bytes + scratch->n };
	return 0;
}
