/*
 * exporter.c -- DESIGN: opens and closes exporters. On the caller's thread.
 *
 * Opening checks the options, binds, then starts the two threads; on failure everything is undone in reverse order. A
 * forked child has neither thread. There the listening socket and the clients' sockets are closed, so that the child
 * does not hold the port or keep clients waiting, and the handle does nothing any more.
 */
#include <memwatch/exporter.h>

#include "discovery.h"
#include "error.h"
#include "http/listen.h"
#include "options.h"
#include "routes.h"
#include "server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TOKEN_BYTES = 24 };

/* --- forks ------------------------------------------------------------------------------------------------------ */

static pthread_mutex_t all_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the list; held over a fork */
static struct memwatch_exporter *all;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* The lists of descriptors must be whole in the child: their locks are held over the fork. */
static void before_fork(void)
{
	pthread_mutex_lock(&all_mutex);
	for (struct memwatch_exporter *exporter = all; exporter; exporter = exporter->next)
		pthread_mutex_lock(&exporter->connections.mutex);
}

static void after_fork(void)
{
	for (struct memwatch_exporter *exporter = all; exporter; exporter = exporter->next)
		pthread_mutex_unlock(&exporter->connections.mutex);
	pthread_mutex_unlock(&all_mutex);
}

static void after_fork_in_child(void)
{
	for (struct memwatch_exporter *exporter = all; exporter; exporter = exporter->next) {
		close(exporter->listen_fd);
		if (exporter->other_fd >= 0)
			close(exporter->other_fd);
		if (exporter->discovery.dir_fd >= 0)
			close(exporter->discovery.dir_fd);
		for (struct connection *connection = exporter->connections.first; connection;
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
	while (*link && *link != exporter)
		link = &(*link)->next;
	if (*link)
		*link = exporter->next;
	pthread_mutex_unlock(&all_mutex);
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

/* Who may read what. */
static int take_rights(struct access *access, const struct memwatch_exporter_options *options)
{
	access->uid = geteuid();
	access->local = options->unix_socket || listen_is_loopback(options->host) == 1;
	access->metrics = access->local ? ACCESS_METRICS_LOCAL : ACCESS_METRICS_TOKEN;
	if (options->metrics_need_token)
		access->metrics = ACCESS_METRICS_TOKEN;
	else if (options->metrics_open)
		access->metrics = ACCESS_METRICS_OPEN;
	int error = options->metrics_users ? access_read_users(access, options->metrics_users) : 0;
	if (error == -E2BIG)
		return exporter_error(-EINVAL, "metrics_users may name %d users", ACCESS_USERS_MAX);
	if (error)
		return exporter_error(-EINVAL, "metrics_users=%s: there is a user that this machine does not know",
				      options->metrics_users);
	return 0;
}

static int take_secrets(struct memwatch_exporter *exporter, const struct memwatch_exporter_options *options)
{
	struct access *access = &exporter->access;
	int error = 0;
	if (options->token)
		snprintf(access->token, sizeof access->token, "%s", options->token);
	else if (access_random(access->token, TOKEN_BYTES) < 0)
		return exporter_error(-EIO, "the system gave no random numbers for a token");
	if (!options->tls_cert_file)
		return 0;
	access->tls = true;
	error = exporter_options_read_pem(options->tls_cert_file, &exporter->tls_cert);
	return error ? error : exporter_options_read_pem(options->tls_key_file, &exporter->tls_key);
}

static void take_names(struct memwatch_exporter *exporter, const struct memwatch_exporter_options *options)
{
	if (options->allowed_host)
		snprintf(exporter->access.allowed, sizeof exporter->access.allowed, "%s", options->allowed_host);
	exporter->epoch = memwatch_epoch(exporter->watcher);
	snprintf(exporter->epoch_text, sizeof exporter->epoch_text, "%016llx", (unsigned long long)exporter->epoch);
}

static int listen_somewhere(struct memwatch_exporter *exporter, const struct memwatch_exporter_options *options)
{
	struct access *access = &exporter->access;
	struct listen_result result;
	int error;
	if (options->unix_socket)
		error = listen_unix(options->unix_socket, &result);
	else
		error = listen_tcp(options->host, options->port, &result);
	if (error == -EADDRINUSE && !options->unix_socket && exporter_options_any_port(options))
		error = listen_tcp(options->host, 0, &result);
	if (error == -EADDRINUSE && !options->unix_socket)
		return exporter_error(error, "port %u of %s is in use: take another, or 0 for any free one",
				      options->port, options->host);
	if (error)
		return exporter_error(error, "cannot listen on %s: %s",
				      options->unix_socket ? options->unix_socket : options->host, strerror(-error));
	exporter->listen_fd = result.fd;
	exporter->other_fd = result.other_fd;
	exporter->socket_dev = result.socket_dev;
	exporter->socket_ino = result.socket_ino;
	access->port = result.port;
	snprintf(access->bound, sizeof access->bound, "%s", result.wildcard ? "" : result.literal);
	if (!options->unix_socket)
		snprintf(exporter->address, sizeof exporter->address, "%s://%s:%u/", access->tls ? "https" : "http",
			 result.wildcard ? (result.ipv6 ? "[::1]" : "127.0.0.1") : result.literal, result.port);
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
	exporter->other_fd = -1;
	exporter->discovery.dir_fd = -1;
	pthread_mutex_init(&exporter->url_mutex, NULL);
	codes_init(&exporter->codes);
	connections_init(&exporter->connections, options->connection_limit, options->tls_cert_file);
	pump_init(&exporter->pump, watcher, &exporter->feeds, &exporter->connections);
	feeds_init(&exporter->feeds, options->feed_limit, options->heartbeat_ms, &exporter->pump.nudge);
	lines_init(&exporter->lines, watcher);
	labels_init(&exporter->labels, options->variable_limit);
	return exporter;
}

/* Removes the socket's file if it is still ours. */
static void remove_socket(const struct memwatch_exporter *exporter)
{
	struct stat info;
	if (exporter->unix_socket && exporter->socket_ino != 0 && lstat(exporter->unix_socket, &info) == 0 &&
	    info.st_dev == exporter->socket_dev && info.st_ino == exporter->socket_ino)
		unlink(exporter->unix_socket);
}

static void destroy(struct memwatch_exporter *exporter)
{
	discovery_close(&exporter->discovery);
	remove_socket(exporter);
	if (exporter->listen_fd >= 0)
		close(exporter->listen_fd);
	if (exporter->other_fd >= 0)
		close(exporter->other_fd);
	codes_fini(&exporter->codes);
	pthread_mutex_destroy(&exporter->url_mutex);
	labels_fini(&exporter->labels);
	lines_fini(&exporter->lines);
	text_fini(&exporter->scrape);
	text_fini(&exporter->open_scrapes[0].text);
	text_fini(&exporter->open_scrapes[1].text);
	pump_fini(&exporter->pump);
	feeds_fini(&exporter->feeds);
	connections_fini(&exporter->connections);
	if (exporter->tls_key)
		explicit_bzero(exporter->tls_key, strlen(exporter->tls_key));
	free(exporter->tls_cert);
	free(exporter->tls_key);
	free(exporter->unix_socket);
	explicit_bzero(&exporter->access, sizeof exporter->access);
	munmap(exporter, sizeof *exporter);
}

static int start(struct memwatch_exporter *exporter, const struct memwatch_exporter_options *options)
{
	int error = take_rights(&exporter->access, options);
	if (!error)
		error = take_secrets(exporter, options);
	if (!error)
		error = identity_take(&exporter->identity, options);
	if (error)
		return error;
	take_names(exporter, options);
	exporter->n_backends = memwatch_backend_list(exporter->watcher, exporter->backends, BACKENDS_MAX);
	if (exporter->n_backends < 0)
		return exporter_error(exporter->n_backends, "%s", memwatch_error());
	if (exporter->n_backends > BACKENDS_MAX)
		exporter->n_backends = BACKENDS_MAX;
	if (options->unix_socket) {
		exporter->unix_socket = strdup(options->unix_socket);
		if (!exporter->unix_socket)
			return exporter_error(-ENOMEM, "out of memory");
	}
	error = listen_somewhere(exporter, options);
	if (error)
		return error;
	error = routes_start(exporter, options->connection_limit);
	if (error)
		return exporter_error(error, "the server did not start: %s",
				      exporter->access.tls ? "look at the TLS files" : strerror(-error));
	return 0;
}

static int announce(struct memwatch_exporter *exporter, const char *runtime_dir)
{
	const struct discovery_facts facts = {
		.pid = exporter->pid,
		.port = exporter->access.port,
		.socket_ino = exporter->socket_ino,
		.identity = &exporter->identity,
		.address = exporter->address,
		.unix_socket = exporter->unix_socket,
		.token = exporter->access.token,
		.epoch = exporter->epoch_text,
	};
	return discovery_open(&exporter->discovery, &facts, runtime_dir);
}

int memwatch_exporter_open(memwatch *watcher, const struct memwatch_exporter_options *given,
			   memwatch_exporter **ret_exporter)
{
	struct memwatch_exporter_options options;
	if (!watcher || !ret_exporter)
		return exporter_error(-EINVAL, "the exporter needs a watcher, and a place for the handle");
	int error = exporter_options_take(given, &options);
	if (error)
		return error;
	struct memwatch_exporter *exporter = make(watcher, &options);
	if (!exporter)
		return exporter_error(-ENOMEM, "out of memory");
	error = start(exporter, &options);
	if (error) {
		destroy(exporter);
		return error;
	}
	list_add(exporter);
	error = announce(exporter, options.runtime_dir);
	if (error) {
		memwatch_exporter_close(exporter);
		return exporter_error(error, "the discovery file cannot be written to %s: %s", options.runtime_dir,
				      strerror(-error));
	}
	*ret_exporter = exporter;
	return 0;
}

/* --- the rest --------------------------------------------------------------------------------------------------- */

void memwatch_exporter_close(memwatch_exporter *exporter)
{
	if (!exporter || exporter->pid != getpid())
		return;
	list_remove(exporter);
	feeds_stop(&exporter->feeds);
	pump_stop(&exporter->pump);
	routes_stop(exporter);
	destroy(exporter);
}

uint16_t memwatch_exporter_port(const memwatch_exporter *exporter)
{
	return exporter ? exporter->access.port : 0;
}

const char *memwatch_exporter_token(const memwatch_exporter *exporter)
{
	return exporter ? exporter->access.token : "";
}

const char *memwatch_exporter_url(memwatch_exporter *exporter)
{
	char code[CODES_TEXT + 1];
	if (!exporter || !*exporter->address)
		return "";
	if (exporter->pid != getpid() || codes_make(&exporter->codes, code) < 0)
		return exporter->address;
	pthread_mutex_lock(&exporter->url_mutex);
	char *url = exporter->urls[exporter->next_url];
	exporter->next_url = (exporter->next_url + 1) % CODES_MAX;
	snprintf(url, sizeof exporter->urls[0], "%s#%s", exporter->address, code);
	pthread_mutex_unlock(&exporter->url_mutex);
	return url;
}

const char *memwatch_exporter_discovery_file(const memwatch_exporter *exporter)
{
	return exporter ? exporter->discovery.path : "";
}
