/*
 * c_sink.c -- events read by a thread of one's own, in batches, as a program does that passes them on.
 *
 *   build/examples/c_sink
 *
 * The lesson: a sink has a cursor of its own, so it reads at its own speed. What the log evicted before it came there
 * is counted as missed, and memwatch_sink_list shows how far it is behind. When the watcher closes, it reads to the
 * end.
 */
#include <memwatch/memwatch.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

enum { BATCH = 16, ROUNDS = 20 };

static int counter;

/* Until the watcher is closed and all is read. A program would send them somewhere here. */
static void *pass_on(void *arg)
{
	memwatch_sink *sink = arg;
	const struct memwatch_event *events[BATCH];
	uint64_t n_events = 0;
	char line[256] = "";
	int n;
	while ((n = memwatch_sink_read(sink, events, BATCH, -1)) >= 0) {
		n_events += (uint64_t)n;
		if (n)
			memwatch_event_text(events[n - 1], line, sizeof line);
		while (n)
			memwatch_event_unref(events[--n]);
	}
	printf("passed on %" PRIu64 " events until %s; the last: %s\n", n_events,
	       n == -EPIPE ? "the watcher closed" : memwatch_error(), line);
	return NULL;
}

static void print_account(memwatch *watcher)
{
	struct memwatch_sink_info info;
	if (memwatch_sink_list(watcher, &info, 1) == 1)
		printf("sink \"%s\" missed %" PRIu64 "\n", info.name, info.missed);
}

__attribute__((noinline)) static void count(void)
{
	counter++;
}

int main(void)
{
	memwatch *watcher = NULL;
	memwatch_sink *sink = NULL;
	pthread_t thread;
	if (memwatch_open(NULL, &watcher) < 0 || MEMWATCH_WATCH(watcher, counter) < 0 ||
	    memwatch_sink_open(watcher, "pass-on", &sink) < 0) {
		fprintf(stderr, "c_sink: %s\n", memwatch_error());
		memwatch_close(watcher);
		return 1;
	}
	if (pthread_create(&thread, NULL, pass_on, sink)) {
		fprintf(stderr, "c_sink: no thread\n");
		memwatch_close(watcher);
		return 1;
	}
	for (int i = 0; i < ROUNDS; i++) {
		count();
		memwatch_flush(watcher, 1000);
	}
	print_account(watcher);
	memwatch_close(watcher);
	pthread_join(thread, NULL);
	memwatch_sink_close(sink);
	return 0;
}
