/*
 * connections.c -- the list of open connections.
 *
 * DESIGN. libmicrohttpd's timeout is one of inactivity: a client that sends one header byte a second keeps its place
 * for ever. So each connection has a deadline for its whole request. The HTTP thread adds and removes entries, the
 * pump reaps; a reaped socket is only shut down: libmicrohttpd sees the end and closes it. An entry exists only while
 * its descriptor is open, since libmicrohttpd announces the end before it closes.
 */
#include "connections.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void connections_init(struct connections *connections)
{
	memset(connections, 0, sizeof *connections);
	pthread_mutex_init(&connections->mutex, NULL);
}

void connections_fini(struct connections *connections)
{
	pthread_mutex_destroy(&connections->mutex);
}

struct connection *connections_add(struct connections *connections, int fd, int64_t now_ms)
{
	struct connection *connection = malloc(sizeof *connection);

	if (connection == NULL)
		return NULL;
	*connection = (struct connection){ .fd = fd, .deadline_ms = now_ms + CONNECTION_FIRST_MS };
	pthread_mutex_lock(&connections->mutex);
	connection->next = connections->first;
	if (connection->next != NULL)
		connection->next->previous = connection;
	connections->first = connection;
	connections->n_open++;
	pthread_mutex_unlock(&connections->mutex);
	return connection;
}

void connections_remove(struct connections *connections, struct connection *connection)
{
	if (connection == NULL)
		return;
	pthread_mutex_lock(&connections->mutex);
	if (connection->next != NULL)
		connection->next->previous = connection->previous;
	if (connection->previous != NULL)
		connection->previous->next = connection->next;
	else
		connections->first = connection->next;
	connections->n_open--;
	pthread_mutex_unlock(&connections->mutex);
	free(connection);
}

static void set_deadline(struct connections *connections, struct connection *connection, int64_t deadline_ms)
{
	if (connection == NULL)
		return;
	pthread_mutex_lock(&connections->mutex);
	connection->deadline_ms = deadline_ms;
	pthread_mutex_unlock(&connections->mutex);
}

void connections_busy(struct connections *connections, struct connection *connection)
{
	set_deadline(connections, connection, INT64_MAX);
}

void connections_idle(struct connections *connections, struct connection *connection, int64_t now_ms)
{
	set_deadline(connections, connection, now_ms + CONNECTION_NEXT_MS);
}

int64_t connections_reap(struct connections *connections, int64_t now_ms)
{
	int64_t next_ms = INT64_MAX;

	pthread_mutex_lock(&connections->mutex);
	for (struct connection *connection = connections->first; connection != NULL; connection = connection->next) {
		if (connection->deadline_ms <= now_ms) {
			shutdown(connection->fd, SHUT_RDWR);
			connection->deadline_ms = INT64_MAX;
			connections->n_cut++;
		} else if (connection->deadline_ms < next_ms) {
			next_ms = connection->deadline_ms;
		}
	}
	pthread_mutex_unlock(&connections->mutex);
	return next_ms;
}

void connections_count(struct connections *connections, unsigned *ret_n_open, uint64_t *ret_n_cut)
{
	pthread_mutex_lock(&connections->mutex);
	*ret_n_open = connections->n_open;
	*ret_n_cut = connections->n_cut;
	pthread_mutex_unlock(&connections->mutex);
}
