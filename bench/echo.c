/*
 * echo.c -- does a saturated server notice its watcher? Four servers and four clients exchange messages over socket
 * pairs without a pause, on as many threads; every request writes its connection, two counters and one of 44 values,
 * 50 variables in all, which lie as the linker has put them. Rounds without a watcher, with one, and without one again
 * take turns: what the second row without is from the first is what the measurement is worth.
 */
#include "watching.h"

#include <pthread.h>
#include <sys/socket.h>

enum { CONNECTIONS = 4, COUNTERS = 2, VALUES = 44, ROUNDS = 8, REQUESTS = 10000, KINDS = 3 };
enum { SAMPLES = ROUNDS * CONNECTIONS * REQUESTS };

struct connection {
	uint64_t n_requests; /* watched */
	int client, server;
	double *latencies; /* of this round */
};

static struct connection connections[CONNECTIONS];
static uint64_t counters[COUNTERS], values[VALUES];
static double latencies[KINDS][SAMPLES];

static void *serve(void *arg)
{
	struct connection *connection = arg;
	uint64_t request;
	for (int i = 0; i < REQUESTS; i++) {
		if (read(connection->server, &request, sizeof request) != sizeof request)
			die("read");
		connection->n_requests++;
		for (int k = 0; k < COUNTERS; k++)
			__atomic_fetch_add(&counters[k], request, __ATOMIC_RELAXED);
		__atomic_store_n(&values[request % VALUES], request, __ATOMIC_RELAXED);
		if (write(connection->server, &request, sizeof request) != sizeof request)
			die("write");
	}
	return NULL;
}

static void *ask(void *arg)
{
	struct connection *connection = arg;
	for (uint64_t i = 0, answer; i < REQUESTS; i++) {
		double start = now_ns();
		if (write(connection->client, &i, sizeof i) != sizeof i ||
		    read(connection->client, &answer, sizeof answer) != sizeof answer)
			die("echo");
		connection->latencies[i] = (now_ns() - start) / 1e3;
	}
	return NULL;
}

static void play_round(double *results)
{
	pthread_t servers[CONNECTIONS], clients[CONNECTIONS];
	for (int i = 0; i < CONNECTIONS; i++) {
		connections[i].latencies = results + i * REQUESTS;
		if (pthread_create(&servers[i], NULL, serve, &connections[i]) ||
		    pthread_create(&clients[i], NULL, ask, &connections[i]))
			die("pthread_create");
	}
	for (int i = 0; i < CONNECTIONS; i++) {
		pthread_join(clients[i], NULL);
		pthread_join(servers[i], NULL);
	}
}

static memwatch *watch_all(void)
{
	memwatch *watcher = open_watcher("auto", 0.01);
	for (int i = 0; i < CONNECTIONS; i++)
		add_region(watcher, &connections[i].n_requests, sizeof connections[i].n_requests);
	for (int i = 0; i < COUNTERS; i++)
		add_region(watcher, &counters[i], sizeof counters[i]);
	for (int i = 0; i < VALUES; i++)
		add_region(watcher, &values[i], sizeof values[i]);
	return watcher;
}

static void report_kind(const char *kind, double *samples)
{
	static const struct {
		const char *name;
		double share;
	} percentiles[] = { { "p50", 0.5 }, { "p99", 0.99 }, { "p99.9", 0.999 } };
	char name[64];
	qsort(samples, SAMPLES, sizeof *samples, compare_doubles);
	for (size_t i = 0; i < sizeof percentiles / sizeof *percentiles; i++) {
		snprintf(name, sizeof name, "%s.%s", kind, percentiles[i].name);
		report(name, samples[(size_t)(percentiles[i].share * SAMPLES)], "us");
	}
}

int main(void)
{
	static const char *const kinds[KINDS] = { "unwatched", "memwatch", "unwatched.again" };
	for (int i = 0; i < CONNECTIONS; i++) {
		int ends[2];
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0)
			die("socketpair");
		connections[i].client = ends[0];
		connections[i].server = ends[1];
	}
	for (int round = 0; round < ROUNDS; round++)
		for (int kind = 0; kind < KINDS; kind++) {
			memwatch *watcher = kind == 1 ? watch_all() : NULL;
			play_round(latencies[kind] + (size_t)round * CONNECTIONS * REQUESTS);
			if (watcher)
				memwatch_close(watcher);
		}
	for (int kind = 0; kind < KINDS; kind++)
		report_kind(kinds[kind], latencies[kind]);
	return 0;
}
