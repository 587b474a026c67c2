/*
 * db.h -- a recording's file: its tables, and the statements that the recorder has for them. One thread, inside
 * recorder_vfs_enter and _leave. Errors are -errno with their sentence: -EBADMSG damaged, -EPROTO no recording, -ESTALE
 * moved away, -ENOBUFS it may not grow, -ENOSPC the disk is full, -EBUSY another process reads or records.
 */
#ifndef RECORDER_DB_H
#define RECORDER_DB_H

#include <sqlite3.h>
#include <stdint.h>

enum { DB_PAGE_BYTES = 4096 };

enum db_statement {
	DB_BEGIN,
	DB_COMMIT,
	DB_ROLLBACK,
	DB_PAGES_USED,
	/* a run */
	DB_NEXT_RUN,
	DB_NEWEST_ID,
	DB_ADD_RUN,
	DB_SET_RUN,
	DB_RUN_BEFORE,
	DB_COUNT_RUNS,
	DB_ADD_LOSS,
	/* events */
	DB_ADD_VARIABLE,
	DB_SET_VARIABLE,
	DB_ADD_LOCATION,
	DB_ADD_FRAME,
	DB_ADD_WRITER,
	DB_SET_WRITER,
	DB_ADD_CHANGE,
	DB_ADD_PATCH,
	DB_ADD_DETAILS,
	/* values */
	DB_BASES_BYTES,
	DB_ADD_BASE,
	/* eviction; ?1 is the id of the last event that goes */
	DB_OLDEST_CHANGE,
	DB_TIME_OF_CHANGE,
	DB_DROP_OLD_BASES,
	DB_PATCHES_TO_FOLD,
	DB_DROP_WHOLE_BASES,
	DB_KEEP_WHOLE_BASES,
	DB_VARIABLES_AT_REST,
	DB_DROP_BASES_OF,
	DB_DROP_VARIABLE,
	DB_COUNT_EVICTED,
	DB_DROP_PATCHES,
	DB_DROP_DETAILS,
	DB_DROP_CHANGES,
	DB_DROP_WRITERS,
	DB_DROP_LOCATIONS,
	DB_DROP_FRAMES,
	DB_SET_KEPT,
	/* a whole run; ?1 is its number */
	DB_NEWEST_OF_RUN,
	DB_DROP_RUN_BASES,
	DB_DROP_RUN_WRITERS,
	DB_DROP_RUN_VARIABLES,
	DB_DROP_RUN_LOCATIONS,
	DB_DROP_RUN_LOSSES,
	DB_DROP_RUN,
	DB_STATEMENTS
};

struct db {
	sqlite3 *handle; /* NULL: closed */
	const char *path;
	sqlite3_stmt *statements[DB_STATEMENTS];
};

/*
 * Opens the file at an absolute path that outlives it, made when it is not there; with the tables. `sync`: commits
 * reach the disk.
 */
int db_open(struct db *db, const char *path, uint64_t max_bytes, int sync);
void db_close(struct db *db); /* also when it is not open */

/* A statement, to bind and step by hand. */
sqlite3_stmt *db_statement(struct db *db, enum db_statement which);

/*
 * Binds by `types`: 'i' an int64_t, 't' a text (NULL and "" are NULL), 'b' bytes and their size_t (NULL is NULL); runs
 * the statement to its end. db_ask stops at the first row: 1, with its column 0 in `*ret_value`; 0 when there is none.
 */
int db_run(struct db *db, enum db_statement which, const char *types, ...);
int db_ask(struct db *db, enum db_statement which, int64_t *ret_value, const char *types, ...);

/* What SQLite returned, as -errno with the sentence. */
int db_error(const struct db *db, int result);

/* Moves a damaged recording aside: `path`.damaged takes the place of an earlier one. */
void db_move_aside(const char *path);

#endif
