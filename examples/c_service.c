/*
 * c_service.c -- a C service whose configuration is watched, with an exporter for Prometheus.
 *
 *   build/examples/c_service [SECONDS [PORT]]       (5 seconds; port 0: any free one)
 *
 * The lesson: watching is memwatch_open and memwatch_region_add, serving is the three lines in serve(), and nothing in
 * the code that writes (refresh_limits) knows of it. The callback runs on a thread of the library's own.
 *
 * What is written all the time has a page of its own: writers are told by the page that they open, so that others on it
 * would cost the configuration's writer his name.
 */
#include <memwatch/exporter.h>
#include <memwatch/memwatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PAGE = 4096 };

static struct config {
	_Alignas(PAGE) int timeout_ms;
	int retries;
	double rate_limit;
} config = { .timeout_ms = 30, .retries = 3, .rate_limit = 100.0 };

static _Alignas(PAGE) uint64_t n_requests;

static void on_change(const struct memwatch_event *event, void *arg)
{
	const struct memwatch_where *where = &event->where;
	(void)arg;
	printf("%4" PRIu64 "  %-10s %" PRIu64 " bytes changed", event->seq, event->name, event->changed_bytes);
	if (where->attribution == MEMWATCH_ATTRIBUTION_EXACT)
		printf(" by %s, %s:%d\n", where->symbol, where->native.file, where->native.line);
	else if (where->page_writer)
		printf(" by somebody; %s wrote to the page\n", where->page_writer->symbol);
	else
		printf(" (%s)\n", memwatch_reason_text(where->reason));
	fflush(stdout);
}

/* Numbers are watched with their format, so that the exporter can show their value. */
static int watch_number(memwatch *watcher, const char *name, void *address, size_t size_bytes, const char *format)
{
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	options.name = name;
	options.format = format;
	return memwatch_region_add(watcher, address, size_bytes, &options, NULL);
}

static int watch_all(memwatch *watcher)
{
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	options.name = "config";
	int error = memwatch_region_add(watcher, &config, sizeof config, &options, NULL);
	if (!error)
		error = watch_number(watcher, "requests", &n_requests, sizeof n_requests, "Q");
	if (!error)
		error = watch_number(watcher, "rate_limit", &config.rate_limit, sizeof config.rate_limit, "d");
	return error;
}

static int serve(memwatch *watcher, uint16_t port, memwatch_exporter **ret_exporter)
{
	struct memwatch_exporter_options options;
	memwatch_exporter_options_init(&options);
	options.port = port;
	return memwatch_exporter_open(watcher, &options, ret_exporter);
}

/* The service's own work: one function that writes now and then, one that writes all the time. */
__attribute__((noinline)) static void refresh_limits(int second)
{
	config.timeout_ms = 30 + second;
	config.rate_limit *= 1.1;
}

__attribute__((noinline)) static void handle_request(void)
{
	n_requests++;
}

static void work(int n_seconds)
{
	for (int tick = 0; tick < n_seconds * 10; tick++) {
		handle_request();
		if (tick % 10 == 0)
			refresh_limits(tick / 10);
		usleep(100 * 1000);
	}
}

int main(int argc, char **argv)
{
	int n_seconds = argc > 1 ? atoi(argv[1]) : 5;
	uint16_t port = (uint16_t)(argc > 2 ? atoi(argv[2]) : 0);
	memwatch *watcher = NULL;
	memwatch_exporter *exporter = NULL;

	if (memwatch_open(NULL, &watcher) < 0 || watch_all(watcher) < 0 ||
	    memwatch_callback_set(watcher, on_change, NULL) < 0) {
		fprintf(stderr, "c_service: %s\n", memwatch_error());
		memwatch_close(watcher);
		return 1;
	}
	if (serve(watcher, port, &exporter) < 0) {
		fprintf(stderr, "c_service: %s\n", memwatch_exporter_error());
		memwatch_close(watcher);
		return 1;
	}
	printf("live page   %s\nmetrics     http://127.0.0.1:%u/metrics\n", memwatch_exporter_url(exporter),
	       memwatch_exporter_port(exporter));
	fflush(stdout);
	work(n_seconds);

	memwatch_exporter_close(exporter);
	memwatch_close(watcher); /* flushes: the last change is delivered */
	return 0;
}
