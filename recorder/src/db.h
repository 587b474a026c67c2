/*
 * db.h -- a recording's file: its tables, and the statements that the recorder has for them. One thread, inside
 * recorder_vfs_enter and _leave. Errors are -errno with their sentence: -EBADMSG damaged, -EPROTO no recording, -ESTALE
 * moved away, -ENOBUFS it may not grow, -ENOSPC the disk is full, -EBUSY another process reads or records, -EINVAL
 * SQLite refuses what it was given.
 */
#ifndef RECORDER_DB_H
#define RECORDER_DB_H

#include <sqlite3.h>
#include <stdint.h>

enum { DB_PAGE_BYTES = 4096 };

struct db {
	sqlite3 *handle; /* NULL: closed */
	const char *path;
	struct db_prepared *prepared;
};

/*
 * Opens the file at an absolute path that outlives it, made when it is not there; with the tables. `sync`: commits
 * reach the disk.
 */
int db_open(struct db *db, const char *path, uint64_t max_bytes, int sync);
void db_close(struct db *db); /* also when it is not open */

/* A statement, to bind and step by hand. It is prepared once: `sql` is a literal, known by its address. */
sqlite3_stmt *db_statement(struct db *db, const char *sql);

/*
 * Binds by `types`: 'i' an int64_t, 't' a text (NULL and "" are NULL), 'b' bytes and their size_t (NULL is NULL); runs
 * the statement, a literal, to its end. db_ask stops at the first row: 1, with its column 0 in `*ret_value`; 0 when
 * there is none.
 */
int db_run(struct db *db, const char *sql, const char *types, ...);
int db_ask(struct db *db, int64_t *ret_value, const char *sql, const char *types, ...);

/* Runs statements one after the other; ?1 in each is `number`. */
int db_script(struct db *db, const char *sql, int64_t number);

/* What SQLite returned, as -errno with the sentence. */
int db_error(const struct db *db, int result);

/* Moves a damaged recording aside: `path`.damaged takes the place of an earlier one. */
void db_move_aside(const char *path);

#endif
