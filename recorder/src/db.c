/*
 * db.c -- DESIGN: see db.h. Statements are prepared when they are first used and live as long as the file is open.
 *
 * A recording has a rollback journal. A write-ahead log would need memory that is shared through a mapped file (see
 * vfs.c), or else lock every reader out. The price: a reader that stays inside one statement holds up the next commit.
 * Then the events wait in the watcher's log.
 */
#define _GNU_SOURCE
#include "db.h"

#include "error.h"
#include "schema.h"
#include "vfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_BYTES = 100, MODE_AT = 18, APPLICATION_AT = 68 };

struct db_prepared {
	struct db_prepared *next;
	const char *sql;
	sqlite3_stmt *statement;
};

/* --- errors --- */

/* Somebody emptied the file, or put another in its place. */
static bool tables_are_gone(const struct db *db)
{
	static const char said[] = "no such table";
	return strncmp(sqlite3_errmsg(db->handle), said, sizeof said - 1) == 0;
}

static int errno_of(const struct db *db, int result)
{
	int cause = recorder_vfs_errno();
	switch (result & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED: return EBUSY;
	case SQLITE_FULL: return ENOBUFS; /* by max_page_count: a full disk is an error of a system call */
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB: return EBADMSG;
	case SQLITE_NOMEM: return ENOMEM;
	case SQLITE_READONLY: return result == SQLITE_READONLY_DBMOVED ? ESTALE : EROFS;
	case SQLITE_IOERR: return result == SQLITE_IOERR_NOMEM ? ENOMEM : cause ? cause : EIO;
	case SQLITE_CANTOPEN: return cause ? cause : EIO;
	case SQLITE_ERROR: return tables_are_gone(db) ? ESTALE : EINVAL;
	default: return EINVAL; /* a constraint, too big, out of range, misuse: no error of the file */
	}
}

int db_error(const struct db *db, int result)
{
	int error = errno_of(db, result);
	switch (error) {
	case EBUSY: return recorder_error_set(-error, "%s is being read by another process", db->path);
	case EBADMSG: return recorder_error_set(-error, "%s is damaged", db->path);
	case ESTALE: return recorder_error_set(-error, "%s was moved away or emptied", db->path);
	case ENOBUFS: return recorder_error_set(-error, "%s may not grow: it needs a larger max_bytes", db->path);
	case ENOMEM: return recorder_error_set(-error, "no memory to record");
	case EINVAL: return recorder_error_set(-error, "SQLite refuses it: %s", sqlite3_errmsg(db->handle));
	default: return recorder_error_set(-error, "%s cannot be written: %s", db->path, strerror(error));
	}
}

/* --- statements --- */

sqlite3_stmt *db_statement(struct db *db, const char *sql)
{
	struct db_prepared *prepared = db->prepared;
	while (prepared && prepared->sql != sql)
		prepared = prepared->next;
	if (prepared)
		return prepared->statement;
	sqlite3_stmt *statement = NULL;
	prepared = malloc(sizeof *prepared);
	if (prepared)
		sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL);
	if (!statement) {
		free(prepared);
		return NULL;
	}
	*prepared = (struct db_prepared){ db->prepared, sql, statement };
	db->prepared = prepared;
	return statement;
}

static int bind_all(sqlite3_stmt *statement, const char *types, va_list arguments)
{
	int result = SQLITE_OK;
	for (int i = 1; *types && !result; types++, i++) {
		if (*types == 'i') {
			result = sqlite3_bind_int64(statement, i, va_arg(arguments, int64_t));
		} else if (*types == 't') {
			const char *text = va_arg(arguments, const char *);
			result = sqlite3_bind_text(statement, i, text && *text ? text : NULL, -1, SQLITE_STATIC);
		} else {
			const void *bytes = va_arg(arguments, const void *);
			result = sqlite3_bind_blob64(statement, i, bytes, va_arg(arguments, size_t), SQLITE_STATIC);
		}
	}
	return result;
}

/* Steps to the first row: SQLITE_ROW or SQLITE_DONE, else an error. */
static int first_step(struct db *db, sqlite3_stmt *statement, const char *types, va_list arguments)
{
	if (!statement)
		return sqlite3_extended_errcode(db->handle);
	int result = bind_all(statement, types, arguments);
	return result ? result : sqlite3_step(statement);
}

int db_run(struct db *db, const char *sql, const char *types, ...)
{
	sqlite3_stmt *statement = db_statement(db, sql);
	va_list arguments;
	va_start(arguments, types);
	int result = first_step(db, statement, types, arguments);
	va_end(arguments);
	while (result == SQLITE_ROW)
		result = sqlite3_step(statement);
	int error = result == SQLITE_DONE ? 0 : db_error(db, result);
	sqlite3_reset(statement);
	return error;
}

int db_ask(struct db *db, int64_t *ret_value, const char *sql, const char *types, ...)
{
	sqlite3_stmt *statement = db_statement(db, sql);
	va_list arguments;
	va_start(arguments, types);
	int result = first_step(db, statement, types, arguments);
	va_end(arguments);
	bool found = result == SQLITE_ROW && sqlite3_column_type(statement, 0) != SQLITE_NULL;
	if (found)
		*ret_value = sqlite3_column_int64(statement, 0);
	int error = result == SQLITE_ROW || result == SQLITE_DONE ? 0 : db_error(db, result);
	sqlite3_reset(statement);
	return error ? error : found;
}

int db_script(struct db *db, const char *sql, int64_t number)
{
	int result = SQLITE_OK;
	while (!result && *sql) {
		sqlite3_stmt *statement = NULL;
		result = sqlite3_prepare_v2(db->handle, sql, -1, &statement, &sql);
		if (sqlite3_bind_parameter_count(statement))
			sqlite3_bind_int64(statement, 1, number);
		while (!result && sqlite3_step(statement) == SQLITE_ROW)
			;
		int stepped = sqlite3_finalize(statement);
		result = result ? result : stepped;
	}
	return result ? db_error(db, result) : 0;
}

/* --- opening --- */

/* The header of a file that SQLite cannot read. */
static bool read_header(const char *path, char header[HEADER_BYTES])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : read(fd, header, HEADER_BYTES);
	if (fd >= 0)
		close(fd); /* no lock is lost: ours belong to their own open files */
	return n == HEADER_BYTES && memcmp(header, "SQLite format 3", 16) == 0;
}

/* Whether it is a recording all the same. */
static bool was_recording(const char *path)
{
	static const uint8_t id[] = { SCHEMA_APPLICATION >> 24, SCHEMA_APPLICATION >> 16 & 255,
				      SCHEMA_APPLICATION >> 8 & 255, SCHEMA_APPLICATION & 255 };
	char header[HEADER_BYTES];
	return read_header(path, header) && memcmp(header + APPLICATION_AT, id, sizeof id) == 0;
}

/* Somebody switched it to a write-ahead log, which our files do not have. */
static bool has_wal(const char *path)
{
	char header[HEADER_BYTES];
	return read_header(path, header) && header[MODE_AT] == 2;
}

static int check_owner(struct db *db)
{
	sqlite3_stmt *statement = NULL;
	int owns = 0;
	sqlite3_file_control(db->handle, "main", RECORDER_VFS_OWNS, &owns);
	if (owns)
		return 0;
	sqlite3_prepare_v2(db->handle, "SELECT pid, host FROM runs ORDER BY run DESC LIMIT 1", -1, &statement, NULL);
	int error = sqlite3_step(statement) == SQLITE_ROW
			    ? recorder_error_set(-EBUSY, "%s is in use: process %d on %s records to it", db->path,
						 sqlite3_column_int(statement, 0),
						 (const char *)sqlite3_column_text(statement, 1))
			    : recorder_error_set(-EBUSY, "%s is in use: another process records to it", db->path);
	sqlite3_finalize(statement);
	return error;
}

/* What is in the file: nothing, or tables of this version, or of the one before. */
static int check_tables(struct db *db)
{
	int64_t application = 0, version = 0, n_pages = 0;
	int error = db_ask(db, &n_pages, "PRAGMA page_count", "");
	if (error >= 0)
		error = db_ask(db, &application, "PRAGMA application_id", "");
	if (error >= 0)
		error = db_ask(db, &version, "PRAGMA user_version", "");
	if (error == -EBADMSG && !was_recording(db->path))
		return recorder_error_set(-EPROTO, "%s is no recording: name another file", db->path);
	if (error < 0 && has_wal(db->path))
		return recorder_error_set(-EPROTO, "%s is in WAL mode: switch it back with PRAGMA journal_mode=DELETE",
					  db->path);
	if (error < 0)
		return error;
	if (n_pages && application != SCHEMA_APPLICATION)
		return recorder_error_set(-EPROTO, "%s is a database, but no recording: name another file", db->path);
	if (n_pages && version > SCHEMA_VERSION)
		return recorder_error_set(-EPROTO, "%s was recorded by a newer memwatch: name another file", db->path);
	if (n_pages && version == SCHEMA_VERSION)
		return 0;
	int result = sqlite3_exec(db->handle, n_pages ? schema_upgrade_sql : schema_sql, NULL, NULL, NULL);
	return result ? db_error(db, result) : 0;
}

static int configure(struct db *db, uint64_t max_bytes, int sync)
{
	char pragmas[200];
	snprintf(pragmas, sizeof pragmas,
		 "PRAGMA synchronous=%s; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-8192; "
		 "PRAGMA journal_mode=DELETE; PRAGMA max_page_count=%llu",
		 sync ? "NORMAL" : "OFF", (unsigned long long)(max_bytes / DB_PAGE_BYTES));
	int result = sqlite3_exec(db->handle, pragmas, NULL, NULL, NULL);
	return result ? db_error(db, result) : 0;
}

/* A directory of another user's is his to rename and replace in. */
static int check_directory(const char *path)
{
	struct stat status;
	char directory[PATH_MAX];
	snprintf(directory, sizeof directory, "%s", path);
	char *slash = strrchr(directory, '/');
	*(slash > directory ? slash : directory + 1) = 0;
	if (stat(directory, &status) < 0)
		return recorder_error_set(-errno, "%s cannot be opened: %s", path, strerror(errno));
	if (status.st_uid && status.st_uid != geteuid())
		return recorder_error_set(-EPERM, "%s is in a directory of another user: record to one of your own",
					  path);
	return 0;
}

static int open_handle(struct db *db)
{
	const char *vfs = recorder_vfs_name();
	if (!vfs)
		return recorder_error_set(-ENOMEM, "no memory for a recorder");
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
	int result = sqlite3_open_v2(db->path, &db->handle, flags, vfs);
	if (!result)
		return 0;
	int cause = recorder_vfs_errno(), error = cause ? cause : EIO;
	const char *refusal = recorder_vfs_refusal();
	if (result == SQLITE_NOMEM)
		return recorder_error_set(-ENOMEM, "no memory for a recorder");
	return refusal ? recorder_error_set(-error, "%s %s", db->path, refusal)
		       : recorder_error_set(-error, "%s cannot be opened: %s", db->path, strerror(error));
}

int db_open(struct db *db, const char *path, uint64_t max_bytes, int sync)
{
	*db = (struct db){ .path = path };
	int error = check_directory(path);
	if (!error)
		error = open_handle(db);
	if (!error) {
		sqlite3_extended_result_codes(db->handle, 1);
		sqlite3_busy_timeout(db->handle, 0);
		error = check_owner(db);
	}
	if (!error)
		error = check_tables(db);
	if (!error)
		error = configure(db, max_bytes, sync);
	if (error == -EBADMSG)
		db_move_aside(path);
	if (error)
		db_close(db);
	return error;
}

void db_close(struct db *db)
{
	for (struct db_prepared *prepared = db->prepared, *next; prepared; prepared = next) {
		next = prepared->next;
		sqlite3_finalize(prepared->statement);
		free(prepared);
	}
	sqlite3_close(db->handle);
	*db = (struct db){ 0 };
}

void db_move_aside(const char *path)
{
	char from[PATH_MAX], to[PATH_MAX];
	const char *const ends[] = { "-journal", "" };
	for (size_t i = 0; i < 2; i++)
		if (snprintf(from, sizeof from, "%s%s", path, ends[i]) < PATH_MAX &&
		    snprintf(to, sizeof to, "%s.damaged%s", path, ends[i]) < PATH_MAX)
			rename(from, to);
}
