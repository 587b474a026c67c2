/*
 * evict.c -- DESIGN: the oldest events leave, whole shares of the file at a time. What they wrote is folded into the
 * value that is kept of their variable (its base), so that the value after every event that stays can still be told,
 * and a variable at rest keeps its value. A run without events leaves as a whole; of this run, variables that nobody
 * watches any more, and where variables alone fill the file, those that rest the longest.
 *
 * Runs on the recorder's thread, in the transaction that needs the room. Nothing of that transaction is evicted.
 */
#include "evict.h"

enum { SHARES = 24 /* of the events in the file: what goes at first; where that frees little, more */ };

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
	if (!result)
		result = sqlite3_blob_write(fold->blob, bytes, n, (int)offset);
	return result == SQLITE_ERROR ? SQLITE_CORRUPT : result; /* it does not fit: ours do */
}

static int fold_patches(struct run *run, int64_t until)
{
	struct fold fold = { .run = run };
	/* Only what was written after the base; one that is not known stays so. */
	sqlite3_stmt *patches = db_statement(
		&run->db,
		"SELECT bases.base, patches.\"offset\", patches.new FROM changes CROSS JOIN patches USING (id) "
		"CROSS JOIN bases ON bases.variable = changes.variable AND bases.id < changes.id AND bases.id <= ?1 "
		"AND bases.value IS NOT NULL WHERE changes.id <= ?1 ORDER BY changes.id");
	int result = patches ? sqlite3_bind_int64(patches, 1, until) : sqlite3_extended_errcode(run->db.handle);
	while (!result && (result = sqlite3_step(patches)) == SQLITE_ROW)
		result = fold_into(&fold, sqlite3_column_int64(patches, 0), sqlite3_column_int64(patches, 1),
				   sqlite3_column_blob(patches, 2), sqlite3_column_bytes(patches, 2));
	int error = result == SQLITE_DONE ? 0 : db_error(&run->db, result);
	sqlite3_reset(patches);
	sqlite3_blob_close(fold.blob);
	return error;
}

/* --- events --- */

static const char drop_old_bases[] = "DELETE FROM bases WHERE id <= ?1 AND EXISTS "
				     "  (SELECT 1 FROM bases AS later WHERE later.variable = bases.variable "
				     "  AND (later.id, later.base) > (bases.id, bases.base) AND later.id <= ?1)";

/* After folding: the values of rows that carry them whole, what the runs say, and then the events. */
static const char drop_events[] =
	"DELETE FROM bases WHERE variable IN "
	"  (SELECT variable FROM changes JOIN variables USING (variable) WHERE changes.id <= ?1 AND whole);"
	"INSERT INTO bases SELECT NULL, variable, max(id), new FROM changes JOIN variables USING (variable) "
	"  WHERE whole AND id <= ?1 GROUP BY variable;"
	"UPDATE runs SET kept_id = ?1, "
	"  kept_ns = coalesce((SELECT time_ns FROM changes WHERE id <= ?1 ORDER BY id DESC LIMIT 1), kept_ns), "
	"  events_evicted = events_evicted + "
	"    (SELECT count(*) FROM changes WHERE id <= ?1 AND id > before_id AND id <= newest_id) WHERE before_id < ?1;"
	"DELETE FROM patches WHERE id <= ?1;"
	"DELETE FROM details WHERE id <= ?1;"
	"DELETE FROM changes WHERE id <= ?1";

/*
 * Older runs whose last event went, and whatever belonged to what is gone. Of the gaps before an event that is kept the
 * last one tells which values are not known.
 */
static const char drop_orphans[] =
	"DELETE FROM runs WHERE newest_id <= ?1 AND run < (SELECT max(run) FROM runs);"
	"DELETE FROM losses WHERE run NOT IN (SELECT run FROM runs);"
	"DELETE FROM losses WHERE (SELECT last_seq FROM losses AS next WHERE next.run = losses.run "
	"  AND next.first_seq > losses.first_seq ORDER BY next.first_seq LIMIT 1) "
	"  <= ?1 - (SELECT seq_offset FROM runs WHERE runs.run = losses.run);"
	"DELETE FROM variables WHERE run NOT IN (SELECT run FROM runs);"
	"DELETE FROM bases WHERE variable NOT IN (SELECT variable FROM variables);"
	"DELETE FROM writers WHERE last_id <= ?1;"
	"DELETE FROM frames WHERE location NOT IN (SELECT location FROM writers);"
	"DELETE FROM locations WHERE location NOT IN (SELECT location FROM writers)";

/* Variables of this run whose last event went: those that nobody watches any more, or all. */
static int drop_variables(struct run *run, int64_t until, bool watched_too)
{
	struct memwatch_region_info info;
	sqlite3_stmt *variables =
		db_statement(&run->db, "SELECT variable, region_id FROM variables WHERE run = ?2 AND last_id <= ?1");
	int error = 0, result = SQLITE_ROW;
	if (!variables)
		return db_error(&run->db, sqlite3_extended_errcode(run->db.handle));
	sqlite3_bind_int64(variables, 1, until);
	sqlite3_bind_int64(variables, 2, run->number);
	while (!error && (result = sqlite3_step(variables)) == SQLITE_ROW) {
		uint64_t region_id = (uint64_t)sqlite3_column_int64(variables, 1);
		if (watched_too || memwatch_region_info_get(run->watcher, region_id, &info) < 0) {
			known_drop(&run->variables, (struct known_key){ region_id, 0 });
			error = db_run(&run->db, "DELETE FROM variables WHERE variable = ?", "i",
				       sqlite3_column_int64(variables, 0));
		}
	}
	if (!error && result != SQLITE_DONE)
		error = db_error(&run->db, result);
	sqlite3_reset(variables);
	return error;
}

int evict_count_bases(struct run *run)
{
	int64_t n = 0;
	int error = db_ask(&run->db, &n, "SELECT coalesce(sum(length(value)), 0) FROM bases", "");
	run->now.bases_bytes = (uint64_t)n;
	return error < 0 ? error : 0;
}

/* All events up to one. */
static int evict(struct run *run, int64_t until)
{
	int error = db_script(&run->db, drop_old_bases, until);
	if (!error)
		error = fold_patches(run, until);
	if (!error)
		error = db_script(&run->db, drop_events, until);
	run->now.events_evicted += error ? 0 : (uint64_t)sqlite3_changes(run->db.handle);
	if (!error)
		error = drop_variables(run, until, false);
	if (!error)
		error = db_script(&run->db, drop_orphans, until);
	if (!error && sqlite3_changes(run->db.handle)) /* locations */
		known_drop_until(&run->locations, until);
	known_drop_until(&run->writers, until);
	return error ? error : evict_count_bases(run);
}

/* Evicts the share of the events that goes first. 1, 0 when none may go. */
static int evict_oldest_share(struct run *run, int64_t shares)
{
	int64_t oldest = 0, newest = run_id_of(run, run->committed.last_seq);
	int found = db_ask(&run->db, &oldest, "SELECT min(id) FROM changes", "");
	if (found <= 0 || oldest >= newest)
		return found < 0 ? found : 0;
	int error = evict(run, oldest + (newest - oldest) / shares);
	return error ? error : 1;
}

/* Drops some of the variables without events, whose values are kept while there is room. 1, 0 when there are none. */
static int evict_resting(struct run *run, int64_t shares)
{
	static const char longest[] = "SELECT last_id FROM variables WHERE last_id < ?1 ORDER BY last_id "
				      "LIMIT 1 OFFSET (SELECT count(*) FROM variables WHERE last_id < ?1) / ?2";
	int64_t oldest = run_id_of(run, run->committed.last_seq), until = 0;
	int found = db_ask(&run->db, &oldest, "SELECT min(id) FROM changes", "");
	if (found >= 0)
		found = db_ask(&run->db, &until, longest, "ii", oldest, shares + 1);
	if (found <= 0)
		return found;
	int error = drop_variables(run, until, true);
	if (!error)
		error = db_script(&run->db, drop_orphans, 0);
	if (!error)
		error = evict_count_bases(run);
	return error ? error : 1;
}

int evict_oldest_run(struct run *run)
{
	int64_t newest = 0;
	int found = db_ask(&run->db, &newest, "SELECT newest_id FROM runs WHERE run < ? ORDER BY run LIMIT 1", "i",
			   run->number);
	if (found <= 0)
		return found;
	int error = evict(run, newest);
	return error ? error : 1;
}

int evict_runs_beyond(struct run *run, uint32_t keep)
{
	int64_t newest = 0;
	int found = db_ask(&run->db, &newest, "SELECT newest_id FROM runs ORDER BY run DESC LIMIT 1 OFFSET ?", "i",
			   (int64_t)keep);
	return found > 0 ? evict(run, newest) : found;
}

int evict_until(struct run *run, unsigned percent)
{
	static const char pages_used[] =
		"SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count";
	int64_t shares = SHARES, limit = (int64_t)(run->max_bytes / DB_PAGE_BYTES * percent / 100), used = 0;
	int went = 1, error = 0;
	while (went > 0 && (error = db_ask(&run->db, &used, pages_used, "")) > 0 && used > limit) {
		went = evict_oldest_share(run, shares);
		if (!went)
			went = evict_oldest_run(run);
		if (!went)
			went = evict_resting(run, shares);
		shares = shares > 1 ? shares / 2 : 1;
	}
	run->used_bytes = (uint64_t)used * DB_PAGE_BYTES;
	return went < 0 ? went : error < 0 ? error : 0;
}
