/*
 * feed_clients.c -- does the worker notice feed clients? Rounds with no client and rounds with 32 that stream
 * everything take turns, while 4,000 variables are written often enough for more than 20,000 events a second: the
 * events a second, what one costs the worker in processor time, and what the clients got. The clients are a process of
 * their own, which competes for the processors with the rest; the worker's time for an event tells its own cost from
 * that.
 */
#include "watching.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <memwatch/exporter.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

enum {
	VARIABLES = 4000,
	PER_SECOND = 24000, /* writes, each to another variable than the last 3,999 */
	CLIENTS = 32,
	ROUNDS = 5,
	SETTLE_MS = 300,
	MEASURE_MS = 1500
};

static uint8_t *memory;
static atomic_int writing = 1;

/* --- the writer ------------------------------------------------------------------------------------------------- */

static void pause_ms(int ms)
{
	const struct timespec pause = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&pause, NULL);
}

/* Writes as many as are due by the clock, so that a late wake-up does not make it slower. */
static void *write_all(void *arg)
{
	double start = now_ns();

	for (uint64_t i = 0; writing; pause_ms(1)) {
		for (uint64_t due = (uint64_t)((now_ns() - start) * PER_SECOND / 1e9); i < due; i++)
			poke(memory + i % VARIABLES * PAGE, (uint8_t)(i / VARIABLES + 1));
	}
	return arg;
}

/* --- the clients, in a process of their own: 'c' on the pipe connects them, 'd' hangs up ------------------------- */

struct target {
	uint16_t port;
	char token[200];
};

static int connect_to(uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		die("client");
	return fd;
}

static int ask(const struct target *target, const char *path)
{
	char request[500];
	int fd = connect_to(target->port);
	int n = snprintf(request, sizeof request,
			 "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nAuthorization: Bearer %s\r\n"
			 "Connection: close\r\n\r\n",
			 path, target->port, target->token);

	if (write(fd, request, (size_t)n) != n)
		die("client");
	return fd;
}

static void run_clients(int commands)
{
	static char buffer[1 << 16];
	struct pollfd fds[CLIENTS + 1] = { { .fd = commands, .events = POLLIN } };
	struct target target;
	char command;

	if (read(commands, &target, sizeof target) != sizeof target)
		_exit(1);
	for (int i = 1; i <= CLIENTS; i++)
		fds[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	while (poll(fds, CLIENTS + 1, -1) > 0) {
		if (fds[0].revents != 0 && read(commands, &command, 1) != 1)
			_exit(0);
		for (int i = 1; i <= CLIENTS; i++) {
			if (fds[0].revents != 0 && command == 'c')
				fds[i].fd = ask(&target, "/api/v1/events/stream");
			else if (fds[0].revents != 0)
				close(fds[i].fd), fds[i].fd = -1;
			else if (fds[i].revents != 0 && read(fds[i].fd, buffer, sizeof buffer) <= 0)
				die("a client was cut");
		}
	}
	_exit(1);
}

static int start_clients(pid_t *ret_pid)
{
	int fds[2];

	if (pipe(fds) < 0)
		die("pipe");
	*ret_pid = fork();
	if (*ret_pid < 0)
		die("fork");
	if (*ret_pid == 0) {
		close(fds[1]);
		run_clients(fds[0]);
	}
	close(fds[0]);
	return fds[1];
}

static void tell(int commands, const void *bytes, size_t n_bytes)
{
	if (write(commands, bytes, n_bytes) != (ssize_t)n_bytes)
		die("the clients are gone");
}

/* --- measuring -------------------------------------------------------------------------------------------------- */

/* The value of a series without labels, from a scrape. */
static double scraped(const struct target *target, const char *name)
{
	static char text[1 << 20];
	size_t n_bytes = 0;
	ssize_t n;
	char line[100];
	const char *found;
	int fd = ask(target, "/metrics");

	while ((n = read(fd, text + n_bytes, sizeof text - 1 - n_bytes)) > 0)
		n_bytes += (size_t)n;
	close(fd);
	text[n_bytes] = '\0';
	snprintf(line, sizeof line, "\n%s ", name);
	found = strstr(text, line);
	if (found == NULL)
		die(name);
	return strtod(found + strlen(line), NULL);
}

/* Processor time of the thread of that name so far. */
static double thread_cpu_ns(const char *name)
{
	DIR *tasks = opendir("/proc/self/task");
	char path[300], comm[32] = "";
	double ns = 0;

	for (struct dirent *entry; tasks != NULL && (entry = readdir(tasks)) != NULL;) {
		FILE *file;

		snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
		file = fopen(path, "r");
		if (file == NULL)
			continue;
		if (fgets(comm, sizeof comm, file) == NULL)
			comm[0] = '\0';
		fclose(file);
		comm[strcspn(comm, "\n")] = '\0';
		if (strcmp(comm, name) != 0)
			continue;
		snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", entry->d_name);
		file = fopen(path, "r");
		if (file == NULL || fscanf(file, "%lf", &ns) != 1)
			die(path);
		fclose(file);
	}
	closedir(tasks);
	return ns;
}

struct round {
	double rate[ROUNDS], cost_ns[ROUNDS], received[ROUNDS], missed[ROUNDS];
};

static uint64_t count_events(memwatch *watcher)
{
	struct memwatch_stats stats;

	OK(memwatch_stats_get(watcher, &stats));
	return stats.ledger.delivered;
}

static void measure(memwatch *watcher, const struct target *target, struct round *round, int i)
{
	double received = scraped(target, "memwatch_feed_events_total"),
	       missed = scraped(target, "memwatch_feed_missed_events_total");
	uint64_t n_events = count_events(watcher);
	double cpu = thread_cpu_ns("memwatch"), start = now_ns(), seconds;

	pause_ms(MEASURE_MS);
	seconds = (now_ns() - start) / 1e9;
	n_events = count_events(watcher) - n_events;
	round->rate[i] = (double)n_events / seconds;
	round->cost_ns[i] = (thread_cpu_ns("memwatch") - cpu) / (double)n_events;
	round->received[i] = (scraped(target, "memwatch_feed_events_total") - received) / seconds;
	round->missed[i] = (scraped(target, "memwatch_feed_missed_events_total") - missed) / seconds;
}

static void report_rounds(struct round *alone, struct round *served)
{
	report("no_client", median(alone->rate, ROUNDS), "events/s");
	report("32_clients", median(served->rate, ROUNDS), "events/s");
	report("no_client.worker", median(alone->cost_ns, ROUNDS), "ns an event");
	report("32_clients.worker", median(served->cost_ns, ROUNDS), "ns an event");
	report("32_clients.received", median(served->received, ROUNDS), "events/s in all");
	report("32_clients.missed", median(served->missed, ROUNDS), "events/s in all");
}

int main(void)
{
	struct memwatch_exporter_options options;
	struct round alone, served;
	struct target target = { 0 };
	pthread_t writer;
	pid_t clients;
	int commands = start_clients(&clients);
	memwatch *watcher = open_watcher("uffd", 1);
	memwatch_exporter *exporter;

	memory = map_small_pages((size_t)VARIABLES * PAGE);
	for (int i = 0; i < VARIABLES; i++)
		add_region(watcher, memory + (size_t)i * PAGE, sizeof(double));
	memwatch_exporter_options_init(&options);
	options.port = 0;
	options.runtime_dir = "";
	OK(memwatch_exporter_open(watcher, &options, &exporter));
	target.port = memwatch_exporter_port(exporter);
	snprintf(target.token, sizeof target.token, "%s", memwatch_exporter_token(exporter));
	tell(commands, &target, sizeof target);
	pthread_create(&writer, NULL, write_all, NULL);
	for (int i = 0; i < ROUNDS; i++) {
		pause_ms(SETTLE_MS);
		measure(watcher, &target, &alone, i);
		tell(commands, "c", 1);
		pause_ms(SETTLE_MS);
		measure(watcher, &target, &served, i);
		tell(commands, "d", 1);
	}
	report_rounds(&alone, &served);
	close(commands);
	waitpid(clients, NULL, 0);
	writing = 0;
	pthread_join(writer, NULL);
	memwatch_exporter_close(exporter);
	memwatch_close(watcher);
	return 0;
}
