/*
 * recorder.c -- 100,000 changes of 8-byte numbers a second, recorded: what the recorder's thread costs, what a change
 * takes on disk, and whether one was missed. A thousand numbers are written every 10 ms. The recording lies in TMPDIR
 * or /tmp.
 */
#include "watching.h"

#include <memwatch/recorder.h>

#include <dirent.h>
#include <sys/stat.h>

enum { REGIONS = 1000, ROUNDS = 500, ROUND_MS = 10 };

static double numbers[REGIONS] __attribute__((aligned(4096)));

static memwatch *watch_numbers(void)
{
	struct memwatch_options options;
	struct memwatch_region_options region;
	memwatch *watcher;
	char name[40];
	memwatch_options_init(&options);
	options.patches = 1;
	OK(memwatch_open(&options, &watcher));
	memwatch_region_options_init(&region);
	region.flags = MEMWATCH_REGION_PINNED;
	region.format = "d";
	region.item_bytes = sizeof numbers[0];
	region.name = name;
	for (int i = 0; i < REGIONS; i++) {
		snprintf(name, sizeof name, "service.group%d.number%d", i / 100, i);
		OK(memwatch_region_add(watcher, &numbers[i], sizeof numbers[i], &region, NULL));
	}
	return watcher;
}

/* CPU time of the threads of this process with such a name. */
static double named_thread_ns(const char *name)
{
	DIR *tasks = opendir("/proc/self/task");
	double sum_ns = 0;
	for (struct dirent *task; tasks && (task = readdir(tasks));) {
		char path[300], text[64] = "";
		snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
		FILE *file = fopen(path, "r");
		bool wanted = file && fgets(text, sizeof text, file) && strncmp(text, name, strlen(name)) == 0;
		if (file)
			fclose(file);
		snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", task->d_name);
		file = wanted ? fopen(path, "r") : NULL;
		if (file && fgets(text, sizeof text, file))
			sum_ns += strtod(text, NULL);
		if (file)
			fclose(file);
	}
	if (tasks)
		closedir(tasks);
	return sum_ns;
}

static void write_all(double step)
{
	for (int i = 0; i < REGIONS; i++)
		((volatile double *)numbers)[i] = step + i * 0.001;
}

/* Rounds at their times, whatever they take. */
static double write_rounds(void)
{
	double start = now_ns();
	for (int round = 1; round <= ROUNDS; round++) {
		write_all(round * 1.1);
		double rest = start + round * ROUND_MS * 1e6 - now_ns();
		if (rest > 0)
			nanosleep(&(struct timespec){ 0, (long)rest }, NULL);
	}
	return now_ns() - start;
}

int main(void)
{
	char folder[] = "/tmp/memwatch-bench-XXXXXX", path[64];
	if (!mkdtemp(folder))
		die("mkdtemp");
	snprintf(path, sizeof path, "%s/recording", folder);
	memwatch *watcher = watch_numbers();
	struct memwatch_recorder_options options;
	struct memwatch_recorder_stats stats;
	memwatch_recorder *recorder;
	memwatch_recorder_options_init(&options);
	options.path = path;
	options.sync = 0;
	OK(memwatch_recorder_open(watcher, &options, &recorder));
	write_all(0.5);
	OK(memwatch_flush(watcher, 10000));
	OK(memwatch_recorder_flush(recorder, 10000));
	double before = named_thread_ns("memwatch-record"), spent_ns = write_rounds();
	OK(memwatch_flush(watcher, 10000));
	OK(memwatch_recorder_flush(recorder, 30000));
	double cpu = named_thread_ns("memwatch-record") - before;
	OK(memwatch_recorder_stats_get(recorder, &stats));
	memwatch_recorder_close(recorder);
	memwatch_close(watcher);
	struct stat file;
	if (stat(path, &file) < 0)
		die(path);
	double n = (double)stats.events_written;
	report("recorder.events_per_second", (n - REGIONS) / (spent_ns / 1e9), "/s");
	report("recorder.cpu_per_event", cpu / (n - REGIONS), "ns");
	report("recorder.bytes_per_change", (double)file.st_blocks * 512 / n, "bytes");
	report("recorder.missed", (double)stats.events_missed, "events");
	unlink(path);
	strcat(path, "-lock");
	unlink(path);
	rmdir(folder);
	return 0;
}
