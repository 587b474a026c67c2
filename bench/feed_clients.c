/*
 * feed_clients.c -- does the worker notice feed clients? Events a second of 1,000 variables that are written all the
 * time, with no client and with 32 that stream everything.
 */
#include "watching.h"

#include <arpa/inet.h>
#include <memwatch/exporter.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>

enum { VARIABLES = 1000, CLIENTS = 32, MEASURE_MS = 2000 };

static uint8_t *memory;
static atomic_int writing = 1;

/* Writes each variable once a window. */
static void *write_all(void *arg)
{
	const struct timespec pause = { .tv_nsec = 2000000 };

	for (uint8_t value = 1; writing; value++) {
		for (int i = 0; i < VARIABLES; i++)
			poke(memory + (size_t)i * PAGE, value);
		nanosleep(&pause, NULL);
	}
	return arg;
}

static int connect_client(uint16_t port, const char *token)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	char request[400];
	int fd = socket(AF_INET, SOCK_STREAM, 0), n;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	n = snprintf(request, sizeof request,
		     "GET /api/v1/events/stream HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nAuthorization: Bearer %s\r\n\r\n",
		     port, token);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
	    write(fd, request, (size_t)n) != n)
		die("client");
	return fd;
}

/* The clients, in a process of their own: read and forget. */
static void run_clients(uint16_t port, const char *token)
{
	static char buffer[1 << 16];
	struct pollfd fds[CLIENTS];

	for (int i = 0; i < CLIENTS; i++)
		fds[i] = (struct pollfd){ .fd = connect_client(port, token), .events = POLLIN };
	while (poll(fds, CLIENTS, -1) > 0) {
		for (int i = 0; i < CLIENTS; i++) {
			if (fds[i].revents != 0 && read(fds[i].fd, buffer, sizeof buffer) <= 0)
				fds[i].fd = -1;
		}
	}
	_exit(0);
}

static uint64_t count_events(memwatch *watcher)
{
	struct memwatch_stats stats;

	OK(memwatch_stats_get(watcher, &stats));
	return stats.ledger.delivered;
}

static double measure_rate(memwatch *watcher)
{
	const struct timespec pause = { .tv_sec = MEASURE_MS / 1000 };
	uint64_t before = count_events(watcher);
	double start = now_ns();

	nanosleep(&pause, NULL);
	return (double)(count_events(watcher) - before) / ((now_ns() - start) / 1e9);
}

int main(void)
{
	struct memwatch_exporter_options options;
	memwatch *watcher = open_watcher("uffd", 0.01);
	memwatch_exporter *exporter;
	pthread_t writer;
	pid_t clients;

	memory = map_small_pages((size_t)VARIABLES * PAGE);
	for (int i = 0; i < VARIABLES; i++)
		add_region(watcher, memory + (size_t)i * PAGE, sizeof(double));
	memwatch_exporter_options_init(&options);
	options.port = 0;
	options.runtime_dir = "";
	OK(memwatch_exporter_open(watcher, &options, &exporter));
	clients = fork();
	if (clients == 0) {
		raise(SIGSTOP);
		run_clients(memwatch_exporter_port(exporter), memwatch_exporter_token(exporter));
	}
	pthread_create(&writer, NULL, write_all, NULL);
	report("no_client", measure_rate(watcher), "events/s");
	kill(clients, SIGCONT);
	report("32_clients", measure_rate(watcher), "events/s");
	kill(clients, SIGKILL);
	waitpid(clients, NULL, 0);
	report("no_client.again", measure_rate(watcher), "events/s");
	writing = 0;
	pthread_join(writer, NULL);
	memwatch_exporter_close(exporter);
	memwatch_close(watcher);
	return 0;
}
