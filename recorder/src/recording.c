/*
 * recording.c -- DESIGN: reads runs, regions and events. Each call is one short transaction, so that a reader never keeps a
 * recorder from using its pages again; between calls the recorder may delete what the last one saw. Values are value.c's.
 * Runs on the caller's thread.
 */
#include "complain.h"
#include "recording.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

/* --- opening --- */

static int check_format(MDB_txn *txn, MDB_dbi dbi, void *arg)
{
	struct table table;
	(void)arg;
	int error = table_open(&table, txn, dbi);
	if (error)
		return error;
	error = table_check_format(&table);
	table_close(&table);
	return error < 0 ? error : 0;
}

int memwatch_recording_open(const char *path, memwatch_recording **ret_recording)
{
	struct memwatch_recording *recording = calloc(1, sizeof *recording);
	if (!recording)
		return complain(-ENOMEM, "no memory to open %s", path);
	int error = lmfile_open(path, &recording->file);
	if (!error)
		error = lmfile_read(recording->file, check_format, NULL);
	if (error) {
		memwatch_recording_close(recording);
		return error;
	}
	*ret_recording = recording;
	return 0;
}

void memwatch_recording_close(memwatch_recording *recording)
{
	if (!recording)
		return;
	lmfile_close(recording->file);
	free(recording);
}

static int run_query(MDB_txn *txn, MDB_dbi dbi, void *arg)
{
	struct query *query = arg;
	int error = table_open(&query->table, txn, dbi);
	if (error)
		return error;
	error = query->run(query);
	table_close(&query->table);
	return error;
}

int recording_query(memwatch_recording *recording, struct query *query, int (*run)(struct query *query))
{
	query->recording = recording;
	query->run = run;
	return lmfile_read(recording->file, run_query, query);
}

/* --- runs --- */

struct runs_query {
	struct query query;
	uint32_t after;
	struct memwatch_recording_run *infos;
	size_t n;
	int count;
};

static void fill_run(struct table *table, uint32_t run, const struct codec_run *record,
		     struct memwatch_recording_run *info)
{
	MDB_val key, value;
	*info = (struct memwatch_recording_run){
		.run = run,
		.epoch = record->epoch,
		.pid = record->pid,
		.start_ns = record->start_ns,
		.end_ns = record->end_ns,
		.last_commit_ns = record->last_commit_ns,
		.events_written = record->events_written,
		.events_evicted = record->events_evicted,
		.events_missed = record->events_missed,
	};
	memcpy(info->program, record->program, sizeof info->program);
	memcpy(info->host, record->host, sizeof info->host);
	if (table_last(table, key_event(run, UINT64_MAX), KEY_RUN_BYTES, &key, &value) == 0)
		info->newest_seq = key_first_of(&key);
	if (table_first(table, key_event(run, 0), KEY_RUN_BYTES, &key, &value) == 0)
		info->oldest_seq = key_first_of(&key);
}

static int list_runs(struct query *query)
{
	struct runs_query *runs = (struct runs_query *)query;
	uint32_t run = runs->after;
	struct codec_run record;
	MDB_val key, value;
	while ((size_t)runs->count < runs->n && run < UINT32_MAX) {
		int error = table_first(&query->table, key_run(run + 1), 1, &key, &value);
		if (error)
			return error == -ENOENT ? 0 : error;
		run = key_run_of(&key);
		if (codec_get_run(&value, &record) == 0)
			fill_run(&query->table, run, &record, &runs->infos[runs->count++]);
	}
	return 0;
}

int memwatch_recording_runs(memwatch_recording *recording, uint32_t after, struct memwatch_recording_run *infos,
			    size_t n)
{
	struct runs_query runs = { .after = after, .infos = infos, .n = n };
	bool live = lmfile_is_live(recording->file);
	int error = recording_query(recording, &runs.query, list_runs);
	if (error)
		return error;
	/* Only the newest run can be the one that is being written. */
	if (runs.count && (size_t)runs.count < n && !infos[runs.count - 1].end_ns)
		infos[runs.count - 1].live = live;
	return runs.count;
}

/* --- regions --- */

struct regions_query {
	struct query query;
	uint32_t run;
	uint64_t after;
	struct memwatch_recording_region *infos;
	size_t n;
	int count;
};

static int list_regions(struct query *query)
{
	struct regions_query *regions = (struct regions_query *)query;
	uint64_t id = regions->after;
	MDB_val key, value, base;
	struct codec_region region;
	while ((size_t)regions->count < regions->n && id < UINT64_MAX) {
		int error = table_first(&query->table, key_region(regions->run, id + 1), KEY_RUN_BYTES, &key, &value);
		if (error)
			return error == -ENOENT ? 0 : error;
		id = key_first_of(&key);
		if (codec_get_region(&value, &region))
			continue;
		struct memwatch_recording_region *info = &regions->infos[regions->count++];
		*info = region.info;
		info->run = regions->run;
		info->id = id;
		error = table_first(&query->table, key_base(regions->run, id, 0), KEY_REGION_BYTES, &key, &base);
		info->oldest_value_seq = error ? UINT64_MAX : key_second_of(&key);
	}
	return 0;
}

int memwatch_recording_regions(memwatch_recording *recording, uint32_t run, uint64_t after,
			       struct memwatch_recording_region *infos, size_t n)
{
	struct regions_query regions = { .run = run, .after = after, .infos = infos, .n = n };
	int error = recording_query(recording, &regions.query, list_regions);
	return error ? error : regions.count;
}

/* --- events --- */

enum { LOOK_AT_MAX = 65536 }; /* events that one transaction passes by */

struct events_query {
	struct query query;
	const struct memwatch_recording_query *wanted;
	struct memwatch_recording_position at;
	struct memwatch_recorded **events;
	size_t n;
	int count, looked_at;
	uint64_t region_id; /* whose record is in `region`, 0: none */
	uint32_t region_run;
	struct codec_region region;
};

static bool is_wanted(const struct events_query *events, uint64_t time_ns)
{
	const struct memwatch_recording_query *wanted = events->wanted;
	if (wanted->since_ns && time_ns < wanted->since_ns)
		return false;
	if (wanted->until_ns && time_ns > wanted->until_ns)
		return false;
	return !wanted->name || fnmatch(wanted->name, events->region.info.name, 0) == 0;
}

static int find_region(struct events_query *events, uint32_t run, uint64_t id)
{
	MDB_val value;
	if (events->region_id == id && events->region_run == run)
		return 0;
	int error = table_get(&events->query.table, key_region(run, id), &value);
	if (!error)
		error = codec_get_region(&value, &events->region);
	events->region_id = error ? 0 : id;
	events->region_run = run;
	return error;
}

/* Takes the event, if it is wanted and not damaged. */
static int take(struct events_query *events, uint32_t run, uint64_t seq, const MDB_val *value)
{
	struct memwatch_recorded *event;
	uint64_t region_id, time_ns;
	if (codec_get_event_region(value, &region_id, &time_ns) || find_region(events, run, region_id) ||
	    !is_wanted(events, time_ns))
		return 0;
	int error = codec_get_event(value, &events->region, &event);
	if (error)
		return error == -ENOMEM ? error : 0;
	event->run = run;
	event->event.seq = seq;
	events->events[events->count++] = event;
	return 0;
}

static int read_events(struct query *query)
{
	struct events_query *events = (struct events_query *)query;
	uint32_t only = events->wanted->run;
	MDB_val key, value;
	if (only && events->at.run < only)
		events->at = (struct memwatch_recording_position){ .run = only };
	struct key from = key_event(events->at.run, events->at.seq + 1);
	int error = table_first(&query->table, from, 1, &key, &value);
	for (; !error; error = table_next(&query->table, from, 1, &key, &value)) {
		uint32_t run = key_run_of(&key);
		if ((only && run != only) || (size_t)events->count == events->n || events->looked_at++ == LOOK_AT_MAX)
			return 0;
		error = take(events, run, key_first_of(&key), &value);
		if (error)
			return error;
		events->at = (struct memwatch_recording_position){ run, key_first_of(&key) };
	}
	return error == -ENOENT ? 0 : error;
}

int memwatch_recording_read(memwatch_recording *recording, const struct memwatch_recording_query *wanted,
			    struct memwatch_recording_position *position, struct memwatch_recorded **events, size_t n)
{
	static const struct memwatch_recording_query all = { .struct_bytes = sizeof all };
	struct events_query query = { .wanted = wanted ? wanted : &all, .at = *position, .events = events, .n = n };
	if (query.wanted->struct_bytes != sizeof all)
		return complain(-EINVAL, "the query's struct_bytes must be sizeof(struct memwatch_recording_query)");
	int error;
	do {
		query.looked_at = 0;
		error = recording_query(recording, &query.query, read_events);
	} while (!error && !query.count && query.looked_at > LOOK_AT_MAX);
	if (error) {
		while (query.count)
			memwatch_recorded_free(events[--query.count]);
		return error;
	}
	*position = query.at;
	return query.count;
}
