/*
 * run.c -- DESIGN: from events to rows. What repeats is written once and known by its number from then on: variables,
 * places in the code, who wrote. What a variable's value goes through is chain.c; what makes room is evict.c.
 *
 * Runs on the recorder's thread. It owns the run's state. Loss: events that never came are a row of `losses`. After a
 * transaction that failed everything is as it was before it.
 */
#define _GNU_SOURCE
#include "run.h"

#include "chain.h"
#include "error.h"
#include "evict.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { ROW_BYTES = 48 /* about what an event takes */, KEPT_ROOM_BYTES = 1 << 20, TEXT_BYTES = 4096, HASH_BYTES = 17 };

/* --- the run --- */

static int add_run(struct run *run)
{
	extern char *program_invocation_short_name;
	char host[65] = "", epoch[HASH_BYTES];
	const char *order = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? "little" : "big";
	gethostname(host, sizeof host - 1);
	snprintf(epoch, sizeof epoch, "%016llx", (unsigned long long)memwatch_epoch(run->watcher));
	return db_run(&run->db,
		      "INSERT INTO runs VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, 0, 0, 0, NULL, NULL)",
		      "itittttiiiii", run->number, epoch, (int64_t)getpid(), program_invocation_short_name, host,
		      memwatch_version(), order, run->before_id, run->seq_offset, (int64_t)run->start_ns,
		      (int64_t)run->last_commit_ns, run->before_id);
}

int run_begin(struct run *run, uint32_t keep_runs)
{
	int error = db_ask(&run->db, &run->number, "SELECT coalesce(max(run), 0) + 1 FROM runs", "");
	if (error >= 0)
		error = db_ask(&run->db, &run->before_id, "SELECT coalesce(max(newest_id), 0) FROM runs", "");
	if (error >= 0)
		error = evict_count_bases(run);
	if (error < 0)
		return error;
	run->start_seq = run->now.last_seq;
	run->seq_offset = run->before_id - (int64_t)run->start_seq;
	error = add_run(run);
	return error || !keep_runs ? error : evict_runs_beyond(run, keep_runs);
}

static int note_gap(struct run *run, uint64_t next_seq)
{
	uint64_t first = run->now.last_seq + 1;
	if (next_seq <= first)
		return 0;
	run->now.gap_seq = next_seq - 1;
	run->now.events_missed += next_seq - first;
	return db_run(&run->db, "INSERT INTO losses VALUES(?, ?, ?)", "iii", run->number, (int64_t)first,
		      (int64_t)run->now.gap_seq);
}

/* --- variables --- */

static void shape_text(const struct memwatch_event *event, char text[TEXT_BYTES])
{
	size_t at = (size_t)snprintf(text, TEXT_BYTES, "[");
	for (uint32_t i = 0; i < event->n_dims; i++)
		at += (size_t)snprintf(text + at, TEXT_BYTES - at, i ? ", %llu" : "%llu",
				       (unsigned long long)event->shape[i]);
	snprintf(text + at, TEXT_BYTES - at, "]");
}

/*
 * Since when the variable has had the value that its first event found: it is watched, the run began, or events were
 * missed. If changes were filtered, nobody knows.
 */
static void since(const struct run *run, const struct memwatch_event *event, uint64_t *ret_seq, uint64_t *ret_ns)
{
	struct memwatch_region_info info;
	*ret_seq = event->seq - 1;
	*ret_ns = event->time_ns;
	if (memwatch_region_info_get(run->watcher, event->region_id, &info) < 0)
		return;
	if (info.ledger.filtered) {
		*ret_seq = event->seq;
		return;
	}
	bool before = info.added_seq < run->start_seq;
	*ret_seq = before ? run->start_seq : info.added_seq;
	*ret_ns = before ? run->start_ns : info.added_ns;
	if (run->now.gap_seq > *ret_seq) {
		*ret_seq = run->now.gap_seq;
		*ret_ns = event->time_ns;
	}
}

static const char *policy_text(enum memwatch_values values)
{
	static const char *const texts[] = { "full", "preview", "hash", "none" };
	return values <= MEMWATCH_VALUES_NONE ? texts[values] : "";
}

static int add_variable(struct run *run, const struct memwatch_event *event)
{
	char shape[TEXT_BYTES];
	uint64_t since_seq, since_ns;
	shape_text(event, shape);
	since(run, event, &since_seq, &since_ns);
	run->new_bytes += 256;
	return db_run(&run->db,
		      "INSERT INTO variables VALUES(NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13)",
		      "iitiittitiiii", run->number, (int64_t)event->region_id, event->name, (int64_t)event->size_bytes,
		      (int64_t)event->item_bytes, event->format, shape, (int64_t)event->fortran_order,
		      policy_text(event->values), (int64_t)chain_is_whole(event), run_id_of(run, since_seq),
		      (int64_t)since_ns, run_id_of(run, event->seq));
}

static int no_memory(void)
{
	return recorder_error_set(-ENOMEM, "no memory to record");
}

/* The entry of a row that was added just now. */
static struct known *added(struct run *run, struct known_table *table, struct known_key key)
{
	return known_add(table, key, sqlite3_last_insert_rowid(run->db.handle));
}

static int variable_of(struct run *run, const struct memwatch_event *event, struct known **ret_variable)
{
	struct known_key key = { event->region_id, 0 };
	struct known *variable = known_find(&run->variables, key);
	if (!variable) {
		int error = add_variable(run, event);
		variable = error ? NULL : added(run, &run->variables, key);
		if (!variable)
			return error ? error : no_memory();
		variable->whole = chain_is_whole(event);
	}
	known_touch(&run->variables, variable);
	*ret_variable = variable;
	return 0;
}

/* --- who wrote --- */

static uint64_t text_hash(uint64_t hash, const char *text)
{
	return text && *text ? XXH3_64bits_withSeed(text, strlen(text), hash) : hash;
}

static uint64_t frames_hash(const struct memwatch_where *where)
{
	uint64_t hash = where->n_frames;
	for (uint32_t i = 0; i < where->n_frames; i++)
		hash = text_hash(text_hash(hash + (uint64_t)where->frames[i].line, where->frames[i].file),
				 where->frames[i].function);
	return hash;
}

static struct known_key key_of(const uint64_t *numbers, size_t n_bytes)
{
	XXH128_hash_t hash = XXH3_128bits(numbers, n_bytes);
	return (struct known_key){ hash.low64, hash.high64 };
}

static struct known_key location_key(const struct memwatch_where *where)
{
	const uint64_t numbers[] = { frames_hash(where),
				     text_hash(text_hash(text_hash(0, where->symbol), where->object),
					       where->libc_function),
				     text_hash((uint64_t)where->native.line, where->native.file), where->offset };
	return key_of(numbers, sizeof numbers);
}

/* Who wrote the change, or by the attribution the page: `events` shows the first one only. */
static const struct memwatch_where *writer_told(const struct memwatch_event *event)
{
	return event->where.page_writer ? event->where.page_writer : &event->where;
}

static struct known_key writer_key(const struct memwatch_event *event)
{
	const struct memwatch_where *where = writer_told(event);
	struct known_key location = location_key(where);
	const uint64_t numbers[] = { location.low,
				     location.high,
				     where->fault_ip,
				     (uint64_t)where->thread_id,
				     text_hash(0, where->thread_name),
				     (uint64_t)where->attribution << 32 | where->reason,
				     text_hash(0, event->backend) };
	return key_of(numbers, sizeof numbers);
}

static int add_location(struct run *run, const struct memwatch_where *where)
{
	static const struct memwatch_frame none = { "", "", 0 };
	const struct memwatch_frame *frame = where->n_frames ? where->frames : &none;
	static const char insert[] = "INSERT INTO locations VALUES(NULL, ?, ?, ?, nullif(?, 0), ?, ?, nullif(?, 0), ?, "
				     "nullif(?, 0), ?)";
	int error = db_run(&run->db, insert, "ittittitit", run->number, frame->file, frame->function,
			   (int64_t)frame->line, where->symbol, where->object, (int64_t)where->offset,
			   where->native.file, (int64_t)where->native.line, where->libc_function);
	int64_t row = sqlite3_last_insert_rowid(run->db.handle);
	for (uint32_t i = 1; !error && i < where->n_frames; i++)
		error = db_run(&run->db, "INSERT INTO frames VALUES(?, ?, ?, ?, ?)", "iitti", row, (int64_t)i,
			       where->frames[i].file, where->frames[i].function, (int64_t)where->frames[i].line);
	sqlite3_set_last_insert_rowid(run->db.handle, row);
	return error;
}

/* The row of the event's place in the code, 0 when nothing is known of it. */
static int location_of(struct run *run, const struct memwatch_where *where, int64_t *ret_row, int64_t id)
{
	if (!where->n_frames && !*where->symbol && !*where->object && !*where->native.file) {
		*ret_row = 0;
		return 0;
	}
	struct known_key key = location_key(where);
	struct known *location = known_find(&run->locations, key);
	if (!location) {
		int error = add_location(run, where);
		location = error ? NULL : added(run, &run->locations, key);
		if (!location)
			return error ? error : no_memory();
	}
	known_touch(&run->locations, location);
	location->now.last_id = id;
	*ret_row = location->row;
	return 0;
}

static int add_writer(struct run *run, const struct memwatch_event *event, int64_t id)
{
	const struct memwatch_where *where = writer_told(event);
	int64_t location = 0;
	int error = location_of(run, where, &location, id);
	run->new_bytes += 256;
	return error ? error
		     : db_run(&run->db,
			      "INSERT INTO writers VALUES(NULL, ?, ?, nullif(?, 0), nullif(?, 0), ?, ?, ?, ?, ?)",
			      "iiiitttti", run->number, location, (int64_t)where->fault_ip, (int64_t)where->thread_id,
			      where->thread_name, memwatch_attribution_text(where->attribution),
			      memwatch_reason_text(where->reason), event->backend, id);
}

static int writer_of(struct run *run, const struct memwatch_event *event, int64_t id, struct known **ret_writer)
{
	struct known_key key = writer_key(event);
	struct known *writer = known_find(&run->writers, key);
	if (!writer) {
		int error = add_writer(run, event, id);
		writer = error ? NULL : added(run, &run->writers, key);
		if (!writer)
			return error ? error : no_memory();
	}
	known_touch(&run->writers, writer);
	writer->now.last_id = id; /* at once: eviction forgets what is older */
	*ret_writer = writer;
	return 0;
}

/* --- the event's row --- */

/* NaNs have no number in SQLite: "nan", and behind it the bytes of one that is not everybody's. */
static int bind_nan(sqlite3_stmt *row, int column, const struct memwatch_event *event, const uint8_t *item)
{
	static const char *const usual[] = { "7e00", "7fc00000", "7ff8000000000000" };
	char text[32] = "nan:";
	size_t n = (size_t)event->item_bytes, at = 4;
	bool big = *event->format == '>' || *event->format == '!' || __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
	for (size_t i = 0; i < n; i++, at += 2)
		snprintf(text + at, sizeof text - at, "%02x", item[big ? i : n - 1 - i]);
	for (size_t i = 0; i < 3; i++)
		if (strcmp(text + 4, usual[i]) == 0)
			text[3] = 0;
	return sqlite3_bind_text(row, column, text, -1, SQLITE_TRANSIENT);
}

static int bind_number(sqlite3_stmt *row, int column, const struct memwatch_event *event, const uint8_t *item)
{
	union memwatch_number_value value;
	char text[24];
	switch (memwatch_number_read(event->format, event->item_bytes, item, &value)) {
	case MEMWATCH_NUMBER_INT: return sqlite3_bind_int64(row, column, value.as_int);
	case MEMWATCH_NUMBER_UINT:
		if (value.as_uint <= INT64_MAX)
			return sqlite3_bind_int64(row, column, (int64_t)value.as_uint);
		snprintf(text, sizeof text, "%llu", (unsigned long long)value.as_uint);
		return sqlite3_bind_text(row, column, text, -1, SQLITE_TRANSIENT);
	case MEMWATCH_NUMBER_DOUBLE:
		return isnan(value.as_double) ? bind_nan(row, column, event, item)
					      : sqlite3_bind_double(row, column, value.as_double);
	case MEMWATCH_NUMBER_NONE: break;
	}
	return sqlite3_bind_null(row, column);
}

/* What adapters show, nearly always. */
static bool is_text(const uint8_t *bytes, size_t n)
{
	size_t i = 0;
	while (i < n && bytes[i] >= 9 && bytes[i] < 127)
		i++;
	return i == n;
}

static int bind_value(sqlite3_stmt *row, int column, const struct chain_cells *cells,
		      const struct memwatch_event *event, const uint8_t *value, size_t n)
{
	if (!value)
		return sqlite3_bind_null(row, column);
	if (cells->are_numbers)
		return bind_number(row, column, event, value);
	return is_text(value, n) ? sqlite3_bind_text64(row, column, (const char *)value, n, SQLITE_STATIC, SQLITE_UTF8)
				 : sqlite3_bind_blob64(row, column, value, n, SQLITE_STATIC);
}

static int add_change(struct run *run, const struct memwatch_event *event, int64_t id, int64_t variable, int64_t writer,
		      const struct chain_cells *cells)
{
	static const char insert[] = "INSERT INTO changes VALUES(?, ?, ?, ?, ?, nullif(?, 0), ?, ?, ?, ?)";
	sqlite3_stmt *row = db_statement(&run->db, insert);
	int result = row ? bind_value(row, 9, cells, event, cells->before, cells->before_bytes)
			 : sqlite3_extended_errcode(run->db.handle);
	if (!result)
		result = bind_value(row, 10, cells, event, cells->after, cells->after_bytes);
	if (result)
		return db_error(&run->db, result);
	return db_run(&run->db, insert, "iiiiiiii", id, variable, writer, (int64_t)event->time_ns,
		      (int64_t)(event->detected_ns - event->time_ns), (int64_t)writer_told(event)->fault_address,
		      (int64_t)event->kind, (int64_t)event->merged);
}

/* --- what a policy leaves, or what has no patch --- */

static size_t preview_of(const struct memwatch_event *event, uint64_t value_bytes)
{
	return (size_t)(value_bytes < event->preview_bytes ? value_bytes : event->preview_bytes);
}

static void ranges_text(const struct memwatch_event *event, char text[TEXT_BYTES])
{
	size_t at = 0;
	for (uint32_t i = 0; i < event->n_changes && at < TEXT_BYTES; i++)
		at += (size_t)snprintf(text + at, TEXT_BYTES - at, "%s[%llu, %llu]", i ? ", " : "[",
				       (unsigned long long)event->changes[i].offset,
				       (unsigned long long)event->changes[i].size_bytes);
	snprintf(text + at, TEXT_BYTES - at, event->n_changes ? "]" : "[]");
}

static int add_details(struct run *run, const struct memwatch_event *event, int64_t id)
{
	char ranges[TEXT_BYTES], old_hash[HASH_BYTES] = "", new_hash[HASH_BYTES] = "";
	ranges_text(event, ranges);
	if (event->values == MEMWATCH_VALUES_HASH) {
		snprintf(old_hash, sizeof old_hash, "%016llx", (unsigned long long)event->old_hash);
		snprintf(new_hash, sizeof new_hash, "%016llx", (unsigned long long)event->new_hash);
	}
	size_t n_old = preview_of(event, event->old_bytes), n_new = preview_of(event, event->new_bytes);
	run->new_bytes += 64 + n_old + n_new;
	return db_run(&run->db, "INSERT INTO details VALUES(?, ?, ?, ?, ?, ?, ?)", "iitbbtt", id,
		      (int64_t)event->changed_bytes, ranges, event->old_preview, n_old, event->new_preview, n_new,
		      old_hash, new_hash);
}

int run_add(struct run *run, const struct memwatch_event *event)
{
	struct known *variable = NULL, *writer = NULL;
	struct chain_cells cells;
	int64_t id = run_id_of(run, event->seq);
	int error = note_gap(run, event->seq);
	if (!error)
		error = variable_of(run, event, &variable);
	if (!error)
		error = writer_of(run, event, id, &writer);
	if (!error)
		error = chain_add(run, variable, event, &cells);
	if (!error)
		error = add_change(run, event, id, variable->row, writer->row, &cells);
	if (!error && !cells.is_told && event->kind == MEMWATCH_EVENT_CHANGE)
		error = add_details(run, event, id);
	if (error)
		return error;
	variable->now.last_id = id;
	run->new_bytes += ROW_BYTES + cells.before_bytes + cells.after_bytes;
	run->now.last_seq = event->seq;
	run->now.events_written++;
	return 0;
}

int run_miss(struct run *run, uint64_t seq)
{
	int error = note_gap(run, seq + 1);
	run->now.last_seq = seq;
	return error;
}

/* --- transactions --- */

static int set_last(struct run *run, const struct known_table *table, const char *sql)
{
	int error = 0;
	for (const struct known *known = table->touched; known && !error; known = known->next_touched)
		error = db_run(&run->db, sql, "ii", known->row, known->now.last_id);
	return error;
}

int run_end(struct run *run, unsigned percent)
{
	const struct run_progress *now = &run->now;
	int error = set_last(run, &run->variables, "UPDATE variables SET last_id = ?2 WHERE variable = ?1");
	if (!error)
		error = set_last(run, &run->writers, "UPDATE writers SET last_id = ?2 WHERE writer = ?1");
	if (!error)
		error = db_run(&run->db,
			       "UPDATE runs SET end_ns = nullif(?2, 0), last_commit_ns = ?3, newest_id = ?4, "
			       "events_written = ?5, events_missed = ?6 WHERE run = ?1",
			       "iiiiii", run->number, (int64_t)run->end_ns, (int64_t)run->last_commit_ns,
			       run_id_of(run, now->last_seq), (int64_t)now->events_written,
			       (int64_t)now->events_missed);
	return error ? error : evict_until(run, percent);
}

static void trim(struct run_room *room)
{
	if (room->capacity <= KEPT_ROOM_BYTES)
		return;
	free(room->bytes);
	*room = (struct run_room){ 0 };
}

void run_committed(struct run *run)
{
	run->committed = run->now;
	run->n_commits++;
	run->new_bytes = 0;
	known_commit(&run->variables);
	known_commit(&run->writers);
	known_commit(&run->locations);
	trim(&run->before);
	trim(&run->after);
}

void run_undo(struct run *run)
{
	run->now = run->committed;
	run->new_bytes = 0;
	known_undo(&run->variables);
	known_undo(&run->writers);
	known_undo(&run->locations);
}

void run_reset(struct run *run, uint64_t last_seq)
{
	known_fini(&run->variables);
	known_fini(&run->writers);
	known_fini(&run->locations);
	run->number = 0;
	run->new_bytes = 0;
	run->now = run->committed = (struct run_progress){ .last_seq = last_seq,
							   .events_evicted = run->committed.events_evicted,
							   .versions_written = run->committed.versions_written,
							   .versions_skipped = run->committed.versions_skipped };
}

void run_fini(struct run *run)
{
	run_reset(run, 0);
	db_close(&run->db);
	free(run->before.bytes);
	free(run->after.bytes);
}
