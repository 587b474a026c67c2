/*
 * c_conditions.c -- events only for what matters: an alarm on a number's range, and a limit on how often it is told.
 *
 *   build/examples/c_conditions
 *
 * The lesson: `when` and its bounds are judged by the worker, before anything is sent. What they reject costs no event
 * and no callback, and is counted: detected = delivered + coalesced + unchanged + filtered + dropped.
 */
#include <memwatch/memwatch.h>
#include <inttypes.h>
#include <stdio.h>

static double temperatures[4] = { 20, 20, 20, 20 };

static void on_alarm(const struct memwatch_event *event, void *arg)
{
	char line[256];
	(void)arg;
	memwatch_event_text(event, line, sizeof line);
	printf("%s\n", line);
}

static int watch(memwatch *watcher, uint64_t *ret_id)
{
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	options.name = "temperatures";
	options.format = "d"; /* doubles: what `when` compares, and how the line shows them */
	options.when = MEMWATCH_WHEN_OUTSIDE;
	options.low = 10;
	options.high = 80;
	return memwatch_region_add(watcher, temperatures, sizeof temperatures, &options, ret_id);
}

/* The program's own work, in its own function: the line above names it. */
__attribute__((noinline)) static void measure(memwatch *watcher, int sensor, double value)
{
	temperatures[sensor] = value;
	memwatch_flush(watcher, 1000); /* so that each is judged by itself, and not as one of a window */
}

int main(void)
{
	struct memwatch_region_info info;
	memwatch *watcher = NULL;
	uint64_t id;
	if (memwatch_open(NULL, &watcher) < 0 || watch(watcher, &id) < 0 ||
	    memwatch_callback_set(watcher, on_alarm, NULL) < 0) {
		fprintf(stderr, "c_conditions: %s\n", memwatch_error());
		memwatch_close(watcher);
		return 1;
	}
	measure(watcher, 0, 21.5);
	measure(watcher, 1, 79);
	measure(watcher, 2, 95); /* the alarm */
	measure(watcher, 3, 22);
	if (memwatch_region_info_get(watcher, id, &info) == 0)
		printf("%" PRIu64 " found, %" PRIu64 " told, %" PRIu64 " not worth an event\n", info.ledger.detected,
		       info.ledger.delivered, info.ledger.filtered);
	return memwatch_close(watcher) < 0;
}
