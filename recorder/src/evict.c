/*
 * evict.c -- DESIGN: the oldest events leave, whole shares of the file at a time. What they wrote is folded into the
 * value that is kept of their variable (its base), so that the value after every event that stays can still be told,
 * and a variable at rest keeps its value. A run without events leaves as a whole; of this run, variables that nobody
 * watches any more.
 *
 * Runs on the recorder's thread, in the transaction that needs the room. Nothing of that transaction is evicted.
 */
#include "evict.h"

#include "vfs.h"

enum { SHARES = 24 /* of the events in the file: what goes at once */ };

/* --- folding --- */

struct fold {
	struct run *run;
	sqlite3_blob *blob;
	int64_t base; /* that `blob` is of */
};

static int fold_into(struct fold *fold, int64_t base, int64_t offset, const void *bytes, int n)
{
	int result = SQLITE_OK;
	if (fold->blob && fold->base != base)
		result = sqlite3_blob_reopen(fold->blob, base);
	else if (!fold->blob)
		result = sqlite3_blob_open(fold->run->db.handle, "main", "bases", "value", base, 1, &fold->blob);
	fold->base = base;
	return result ? result : sqlite3_blob_write(fold->blob, bytes, n, (int)offset);
}

static int fold_patches(struct run *run, int64_t until)
{
	struct fold fold = { .run = run };
	sqlite3_stmt *patches = db_statement(&run->db, DB_PATCHES_TO_FOLD);
	int result = patches ? sqlite3_bind_int64(patches, 1, until) : sqlite3_extended_errcode(run->db.handle);
	while (!result && (result = sqlite3_step(patches)) == SQLITE_ROW)
		result = fold_into(&fold, sqlite3_column_int64(patches, 0), sqlite3_column_int64(patches, 1),
				   sqlite3_column_blob(patches, 2), sqlite3_column_bytes(patches, 2));
	sqlite3_reset(patches);
	sqlite3_blob_close(fold.blob);
	return result == SQLITE_DONE ? 0 : db_error(&run->db, result);
}

static int keep_values(struct run *run, int64_t until)
{
	int error = db_run(&run->db, DB_DROP_OLD_BASES, "i", until);
	if (!error)
		error = fold_patches(run, until);
	if (!error)
		error = db_run(&run->db, DB_DROP_WHOLE_BASES, "i", until);
	return error ? error : db_run(&run->db, DB_KEEP_WHOLE_BASES, "i", until);
}

/* --- what nobody needs any more --- */

static int drop_variable(struct run *run, int64_t variable, uint64_t region_id)
{
	int error = db_run(&run->db, DB_DROP_BASES_OF, "i", variable);
	if (!error)
		error = db_run(&run->db, DB_DROP_VARIABLE, "i", variable);
	known_drop(&run->variables, (struct known_key){ region_id, 0 });
	return error;
}

/* Variables of this run without events are kept as long as they are watched. */
static int drop_unwatched(struct run *run, int64_t until)
{
	struct memwatch_region_info info;
	sqlite3_stmt *variables = db_statement(&run->db, DB_VARIABLES_AT_REST);
	int error = 0, result = SQLITE_ROW;
	if (!variables)
		return db_error(&run->db, sqlite3_extended_errcode(run->db.handle));
	sqlite3_bind_int64(variables, 1, until);
	sqlite3_bind_int64(variables, 2, run->number);
	while (!error && (result = sqlite3_step(variables)) == SQLITE_ROW) {
		uint64_t region_id = (uint64_t)sqlite3_column_int64(variables, 1);
		if (memwatch_region_info_get(run->watcher, region_id, &info) < 0)
			error = drop_variable(run, sqlite3_column_int64(variables, 0), region_id);
	}
	sqlite3_reset(variables);
	return error || result == SQLITE_DONE ? error : db_error(&run->db, result);
}

static int drop_writers(struct run *run, int64_t until)
{
	int error = db_run(&run->db, DB_DROP_WRITERS, "i", until);
	if (!error)
		error = db_run(&run->db, DB_DROP_LOCATIONS, "");
	if (!error && sqlite3_changes(run->db.handle)) {
		known_drop_until(&run->locations, until);
		error = db_run(&run->db, DB_DROP_FRAMES, "");
	}
	known_drop_until(&run->writers, until);
	return error;
}

static int drop_run(struct run *run, int64_t number)
{
	static const enum db_statement all[] = { DB_DROP_RUN_BASES,     DB_DROP_RUN_WRITERS, DB_DROP_RUN_VARIABLES,
						 DB_DROP_RUN_LOCATIONS, DB_DROP_RUN_LOSSES,  DB_DROP_RUN };
	int error = 0;
	for (size_t i = 0; !error && i < sizeof all / sizeof *all; i++)
		error = db_run(&run->db, all[i], "i", number);
	return error ? error : db_run(&run->db, DB_DROP_FRAMES, "");
}

/* Older runs whose last event went. */
static int drop_empty_runs(struct run *run, int64_t until)
{
	int64_t oldest, newest;
	int found;
	while ((found = db_ask(&run->db, DB_RUN_BEFORE, &oldest, "i", run->number)) > 0) {
		found = db_ask(&run->db, DB_NEWEST_OF_RUN, &newest, "i", oldest);
		if (found < 0 || newest > until)
			break;
		found = drop_run(run, oldest);
		if (found < 0)
			break;
	}
	return found < 0 ? found : 0;
}

/* --- events --- */

static int drop_events(struct run *run, int64_t until)
{
	static const enum db_statement all[] = { DB_DROP_PATCHES, DB_DROP_DETAILS, DB_DROP_CHANGES };
	int error = db_run(&run->db, DB_COUNT_EVICTED, "i", until);
	for (size_t i = 0; !error && i < sizeof all / sizeof *all; i++)
		error = db_run(&run->db, all[i], "i", until);
	run->now.events_evicted += (uint64_t)sqlite3_changes(run->db.handle);
	return error;
}

static int evict_events(struct run *run, int64_t until)
{
	int64_t time_ns = 0, bases_bytes = 0;
	int error = db_ask(&run->db, DB_TIME_OF_CHANGE, &time_ns, "i", until);
	error = error < 0 ? error : keep_values(run, until);
	if (!error)
		error = drop_events(run, until);
	if (!error)
		error = db_run(&run->db, DB_SET_KEPT, "ii", until, time_ns);
	if (!error)
		error = drop_unwatched(run, until);
	if (!error)
		error = drop_writers(run, until);
	if (!error)
		error = drop_empty_runs(run, until);
	if (!error)
		error = db_ask(&run->db, DB_BASES_BYTES, &bases_bytes, "");
	run->now.bases_bytes = (uint64_t)bases_bytes;
	return error < 0 ? error : 0;
}

/* The last event of the share that goes first; 0: nothing may go. */
static int64_t oldest_share(struct run *run)
{
	int64_t oldest = 0, newest = run_id_of(run, run->committed.last_seq);
	if (db_ask(&run->db, DB_OLDEST_CHANGE, &oldest, "") <= 0 || oldest >= newest)
		return 0;
	return oldest + (newest - oldest) / SHARES;
}

int evict_oldest_run(struct run *run)
{
	int64_t oldest, newest = 0;
	int found = db_ask(&run->db, DB_RUN_BEFORE, &oldest, "i", run->number);
	if (found <= 0)
		return found;
	found = db_ask(&run->db, DB_NEWEST_OF_RUN, &newest, "i", oldest);
	int error = found < 0 ? found : evict_events(run, newest);
	return error ? error : 1;
}

int evict_until(struct run *run, unsigned percent)
{
	int64_t limit = (int64_t)(run->max_bytes / DB_PAGE_BYTES * percent / 100), used = 0, until = 0;
	int error;
	while ((error = db_ask(&run->db, DB_PAGES_USED, &used, "")) > 0 && used > limit) {
		until = oldest_share(run);
		error = until ? evict_events(run, until) : evict_oldest_run(run);
		if (error < 0 || (!until && !error))
			break;
	}
	run->used_bytes = (uint64_t)used * DB_PAGE_BYTES;
	return error < 0 ? error : 0;
}
