/*
 * c_recorder.c -- every change of a table, in a file that any SQLite tool opens and that outlives the process.
 *
 *   build/examples/c_recorder [FILE]            (changes.memwatch)
 *   sqlite3 FILE 'SELECT * FROM changes'
 *
 * The lesson: a recorder is a sink with a thread and a file of its own. `patches` makes events carry what was written,
 * so that large regions are recorded as what changed of them. docs/recording.md has the file's tables.
 */
#include <memwatch/memwatch.h>
#include <memwatch/recorder.h>
#include <inttypes.h>
#include <stdio.h>

enum { ROUNDS = 10 };

static int32_t table[1000];

static int record(memwatch *watcher, const char *path, memwatch_recorder **ret_recorder)
{
	struct memwatch_recorder_options options;
	memwatch_recorder_options_init(&options);
	options.path = path;
	int error = memwatch_recorder_open(watcher, &options, ret_recorder);
	if (error)
		fprintf(stderr, "c_recorder: %s\n", memwatch_recorder_error());
	return error;
}

/* Whether the file could be opened and written is told by the stats: the program goes on without it. */
static int print_stats(memwatch_recorder *recorder, const char *path)
{
	struct memwatch_recorder_stats stats;
	int error = memwatch_recorder_flush(recorder, 2000);
	if (memwatch_recorder_stats_get(recorder, &stats) < 0)
		return 1;
	printf("%s: run %" PRIu32 ", %" PRIu64 " events written, %" PRIu64 " missed%s%s\n", path, stats.run,
	       stats.events_written, stats.events_missed, *stats.message ? ": " : "", stats.message);
	return error < 0 || stats.errors > 0;
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "changes.memwatch";
	struct memwatch_options options;
	memwatch_recorder *recorder = NULL;
	memwatch *watcher = NULL;
	int failed = 1;
	memwatch_options_init(&options);
	options.patches = 1;
	if (memwatch_open(&options, &watcher) < 0 || MEMWATCH_WATCH(watcher, table) < 0) {
		fprintf(stderr, "c_recorder: %s\n", memwatch_error());
	} else if (record(watcher, path, &recorder) == 0) {
		for (int i = 0; i < ROUNDS; i++) {
			table[i * 100]++;
			memwatch_flush(watcher, 1000);
		}
		failed = print_stats(recorder, path);
	}
	memwatch_recorder_close(recorder);
	memwatch_close(watcher);
	return failed;
}
