/*
 * exporter.c -- opens and closes exporters.
 *
 * DESIGN. On the caller's thread. open() checks the options, binds, then starts the two threads; on failure everything
 * is undone in reverse order. A forked child has neither thread: there the listening socket and the clients' sockets
 * are closed, so that the child does not hold the port or keep clients waiting, and the handle does nothing any more.
 */
#include <memwatch/exporter.h>

#include "discovery.h"
#include "feeds/feed.h"
#include "routes.h"
#include "http/listen.h"
#include "feeds/pump.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PORT_DEFAULT = 10764, VARIABLE_LIMIT_MAX = 10000, CONNECTION_LIMIT_MAX = 65536, PEM_MAX = 1 << 20 };

static __thread char error_text[512];

const char *memwatch_exporter_error(void)
{
	return error_text;
}

__attribute__((format(printf, 2, 3))) static int fail(int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(error_text, sizeof error_text, format, arguments);
	va_end(arguments);
	return error;
}

int64_t server_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t server_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* --- forks ------------------------------------------------------------------------------------------------------ */

static pthread_mutex_t all_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the list; held over a fork */
static struct memwatch_exporter *all;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* The lists of descriptors must be whole in the child: their locks are held over the fork. */
static void before_fork(void)
{
	pthread_mutex_lock(&all_mutex);
	for (struct memwatch_exporter *exporter = all; exporter != NULL; exporter = exporter->next)
		pthread_mutex_lock(&exporter->connections.mutex);
}

static void after_fork(void)
{
	for (struct memwatch_exporter *exporter = all; exporter != NULL; exporter = exporter->next)
		pthread_mutex_unlock(&exporter->connections.mutex);
	pthread_mutex_unlock(&all_mutex);
}

static void after_fork_in_child(void)
{
	for (struct memwatch_exporter *exporter = all; exporter != NULL; exporter = exporter->next) {
		close(exporter->listen_fd);
		for (struct connection *connection = exporter->connections.first; connection != NULL;
		     connection = connection->next)
			close(connection->fd);
	}
	after_fork();
	all = NULL;
}

static void install_fork_handlers(void)
{
	pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

static void list_add(struct memwatch_exporter *exporter)
{
	pthread_once(&fork_once, install_fork_handlers);
	pthread_mutex_lock(&all_mutex);
	exporter->next = all;
	all = exporter;
	pthread_mutex_unlock(&all_mutex);
}

static void list_remove(struct memwatch_exporter *exporter)
{
	struct memwatch_exporter **link = &all;

	pthread_mutex_lock(&all_mutex);
	while (*link != NULL && *link != exporter)
		link = &(*link)->next;
	if (*link != NULL)
		*link = exporter->next;
	pthread_mutex_unlock(&all_mutex);
}

/* --- options ---------------------------------------------------------------------------------------------------- */

void memwatch_exporter_options_init(struct memwatch_exporter_options *options)
{
	*options = (struct memwatch_exporter_options){
		.struct_bytes = sizeof *options,
		.host = "127.0.0.1",
		.port = PORT_DEFAULT,
		.connection_limit = 128,
		.feed_limit = 32,
		.variable_limit = 100,
		.heartbeat_ms = 15000,
	};
}

static int check_limits(const struct memwatch_exporter_options *options)
{
	if (options->connection_limit < 2 || options->connection_limit > CONNECTION_LIMIT_MAX)
		return fail(-EINVAL, "connection_limit must be 2 to %d.", CONNECTION_LIMIT_MAX);
	if (options->feed_limit >= options->connection_limit)
		return fail(-EINVAL,
			    "feed_limit must be less than connection_limit, so that scrapes always get through.");
	if (options->variable_limit > VARIABLE_LIMIT_MAX)
		return fail(-EINVAL, "variable_limit must be at most %d.", VARIABLE_LIMIT_MAX);
	if (options->heartbeat_ms < 100 || options->heartbeat_ms > 3600000)
		return fail(-EINVAL, "heartbeat_ms must be 100 to 3,600,000.");
	return 0;
}

static int check_address(const struct memwatch_exporter_options *options)
{
	int loopback;

	if (options->unix_socket != NULL)
		return 0;
	if (options->host == NULL)
		return fail(-EINVAL, "host is missing: give an address such as 127.0.0.1, or a unix_socket.");
	loopback = listen_is_loopback(options->host);
	if (loopback < 0)
		return fail(-EINVAL, "host must be an IPv4 or IPv6 address in numbers, or localhost.");
	if (!loopback && !options->insecure && (options->token == NULL || options->tls_cert_file == NULL))
		return fail(-EACCES, "Others could reach %s: give a token and TLS files, or say insecure.",
			    options->host);
	return 0;
}

/*
 * A name goes into comparisons only, but one with odd characters is a mistake.
 */
static int check_names(const struct memwatch_exporter_options *options)
{
	const char *name = options->allowed_host;

	if (options->token != NULL && !access_token_valid(options->token))
		return fail(-EINVAL, "The token must be %d to %d characters of A-Z a-z 0-9 _ -.", ACCESS_TOKEN_MIN,
			    ACCESS_TOKEN_MAX);
	if (name != NULL && (*name == '\0' || strlen(name) >= ACCESS_NAME_MAX || strpbrk(name, " \t\r\n/@") != NULL))
		return fail(-EINVAL, "allowed_host must be a host name, with or without a port.");
	if ((options->tls_cert_file == NULL) != (options->tls_key_file == NULL))
		return fail(-EINVAL, "TLS needs both tls_cert_file and tls_key_file.");
	return 0;
}

static int check(const struct memwatch_exporter_options *options)
{
	int error = options->struct_bytes == sizeof *options
			    ? 0
			    : fail(-EINVAL, "Fill the options in with memwatch_exporter_options_init() first.");

	if (error == 0)
		error = check_limits(options);
	if (error == 0)
		error = check_address(options);
	return error < 0 ? error : check_names(options);
}

/* The file as a string. */
static int read_pem(const char *path, char **ret_text)
{
	FILE *file = fopen(path, "re");
	char *text = malloc(PEM_MAX + 1);
	size_t n_bytes;
	int error = 0;

	if (file == NULL)
		error = -errno;
	else if (text == NULL)
		error = -ENOMEM;
	if (error == 0) {
		n_bytes = fread(text, 1, PEM_MAX, file);
		text[n_bytes] = '\0';
		if (n_bytes == 0 || ferror(file))
			error = -EIO;
	}
	if (file != NULL)
		fclose(file);
	if (error < 0) {
		free(text);
		return fail(error, "%s cannot be read: %s.", path, strerror(-error));
	}
	*ret_text = text;
	return 0;
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

static int take_secrets(struct memwatch_exporter *exporter, const struct memwatch_exporter_options *options)
{
	struct access *access = &exporter->access;
	int error = 0;

	if (options->token != NULL)
		snprintf(access->token, sizeof access->token, "%s", options->token);
	else if (access_token_make(access->token) < 0)
		return fail(-EIO, "The system gave no random numbers for a token.");
	if (options->tls_cert_file == NULL)
		return 0;
	access->tls = 1;
	error = read_pem(options->tls_cert_file, &exporter->tls_cert);
	return error < 0 ? error : read_pem(options->tls_key_file, &exporter->tls_key);
}

static void take_names(struct memwatch_exporter *exporter, const struct memwatch_exporter_options *options)
{
	const char *service = options->service != NULL ? options->service : program_invocation_short_name;

	snprintf(exporter->service, sizeof exporter->service, "%s", service);
	if (options->allowed_host != NULL)
		snprintf(exporter->access.allowed, sizeof exporter->access.allowed, "%s", options->allowed_host);
	exporter->epoch = memwatch_epoch(exporter->watcher);
	snprintf(exporter->epoch_text, sizeof exporter->epoch_text, "%016llx", (unsigned long long)exporter->epoch);
}

static int listen_somewhere(struct memwatch_exporter *exporter, const struct memwatch_exporter_options *options)
{
	struct access *access = &exporter->access;
	struct listen_result result;
	int error;

	if (options->unix_socket != NULL)
		error = listen_unix(options->unix_socket, &result);
	else
		error = listen_tcp(options->host, options->port, &result);
	if (error == -EADDRINUSE && options->unix_socket == NULL)
		return fail(error, "Port %u of %s is in use: take another, or 0 for any.", options->port,
			    options->host);
	if (error < 0)
		return fail(error, "Cannot listen on %s: %s.",
			    options->unix_socket != NULL ? options->unix_socket : options->host, strerror(-error));
	exporter->listen_fd = result.fd;
	exporter->socket_dev = result.socket_dev;
	exporter->socket_ino = result.socket_ino;
	access->port = result.port;
	snprintf(access->bound, sizeof access->bound, "%s", result.wildcard ? "" : result.literal);
	snprintf(access->cookie, sizeof access->cookie, "memwatch-%u", result.port);
	if (options->unix_socket == NULL)
		snprintf(exporter->url, sizeof exporter->url, "%s://%s:%u/?token=%s", access->tls ? "https" : "http",
			 result.wildcard ? (result.ipv6 ? "[::1]" : "127.0.0.1") : result.literal, result.port,
			 access->token);
	return 0;
}

static struct memwatch_exporter *make(memwatch *watcher, const struct memwatch_exporter_options *options)
{
	/*
	 * Pages of its own: its threads write here all the time, and on the heap a watched variable may be the
	 * neighbour.
	 */
	struct memwatch_exporter *exporter =
		mmap(NULL, sizeof *exporter, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (exporter == MAP_FAILED)
		return NULL;
	exporter->watcher = watcher;
	exporter->pid = getpid();
	exporter->listen_fd = -1;
	exporter->metrics_need_token = options->metrics_need_token;
	exporter->feed_limit = options->feed_limit;
	exporter->heartbeat_ms = options->heartbeat_ms;
	connections_init(&exporter->connections, options->connection_limit, options->tls_cert_file != NULL);
	feeds_init(&exporter->feeds);
	pump_init(&exporter->pump, watcher);
	lines_init(&exporter->lines, watcher);
	labels_init(&exporter->labels, options->variable_limit);
	return exporter;
}

/* Removes the socket's file if it is still ours. */
static void remove_socket(const struct memwatch_exporter *exporter)
{
	struct stat info;

	if (exporter->unix_socket != NULL && exporter->socket_ino != 0 && lstat(exporter->unix_socket, &info) == 0 &&
	    info.st_dev == exporter->socket_dev && info.st_ino == exporter->socket_ino)
		unlink(exporter->unix_socket);
}

static void destroy(struct memwatch_exporter *exporter)
{
	discovery_close(exporter);
	remove_socket(exporter);
	if (exporter->listen_fd >= 0)
		close(exporter->listen_fd);
	labels_fini(&exporter->labels);
	lines_fini(&exporter->lines);
	text_fini(&exporter->scrape);
	pump_fini(&exporter->pump);
	feeds_fini(&exporter->feeds);
	connections_fini(&exporter->connections);
	if (exporter->tls_key != NULL)
		explicit_bzero(exporter->tls_key, strlen(exporter->tls_key));
	free(exporter->tls_cert);
	free(exporter->tls_key);
	free(exporter->unix_socket);
	explicit_bzero(&exporter->access, sizeof exporter->access);
	munmap(exporter, sizeof *exporter);
}

static int start(struct memwatch_exporter *exporter, const struct memwatch_exporter_options *options)
{
	int error = take_secrets(exporter, options);

	if (error < 0)
		return error;
	take_names(exporter, options);
	exporter->n_backends = memwatch_backend_list(exporter->watcher, exporter->backends, BACKENDS_MAX);
	if (exporter->n_backends > BACKENDS_MAX)
		exporter->n_backends = BACKENDS_MAX;
	if (options->unix_socket != NULL) {
		exporter->unix_socket = strdup(options->unix_socket);
		if (exporter->unix_socket == NULL)
			return fail(-ENOMEM, "Out of memory.");
	}
	error = listen_somewhere(exporter, options);
	if (error < 0)
		return error;
	error = routes_start(exporter, options->connection_limit);
	if (error < 0)
		return fail(error, "The server did not start: %s.",
			    exporter->access.tls ? "look at the TLS files" : strerror(-error));
	return 0;
}

int memwatch_exporter_open(memwatch *watcher, const struct memwatch_exporter_options *options,
			   memwatch_exporter **ret_exporter)
{
	struct memwatch_exporter_options defaults;
	struct memwatch_exporter *exporter;
	int error;

	if (options == NULL) {
		memwatch_exporter_options_init(&defaults);
		options = &defaults;
	}
	if (watcher == NULL || ret_exporter == NULL)
		return fail(-EINVAL, "The exporter needs a watcher, and a place for the handle.");
	error = check(options);
	if (error < 0)
		return error;
	exporter = make(watcher, options);
	if (exporter == NULL)
		return fail(-ENOMEM, "Out of memory.");
	error = start(exporter, options);
	if (error < 0) {
		destroy(exporter);
		return error;
	}
	list_add(exporter);
	error = discovery_open(exporter, options->runtime_dir);
	if (error < 0) {
		memwatch_exporter_close(exporter);
		return fail(error, "The discovery file cannot be written to %s: %s.", options->runtime_dir,
			    strerror(-error));
	}
	*ret_exporter = exporter;
	return 0;
}

/* --- the rest --------------------------------------------------------------------------------------------------- */

void memwatch_exporter_close(memwatch_exporter *exporter)
{
	if (exporter == NULL || exporter->pid != getpid())
		return;
	list_remove(exporter);
	feeds_stop(&exporter->feeds);
	pump_stop(&exporter->pump);
	routes_stop(exporter);
	destroy(exporter);
}

uint16_t memwatch_exporter_port(const memwatch_exporter *exporter)
{
	return exporter->access.port;
}

const char *memwatch_exporter_token(const memwatch_exporter *exporter)
{
	return exporter->access.token;
}

const char *memwatch_exporter_url(const memwatch_exporter *exporter)
{
	return exporter->url;
}
