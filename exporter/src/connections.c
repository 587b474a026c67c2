/*
 * connections.c -- the list of open connections.
 *
 * DESIGN. libmicrohttpd's timeout is one of inactivity: a client that sends one header byte a second keeps its place
 * for ever. So each connection has a deadline for its whole request. The HTTP thread adds and removes entries, the
 * pump reaps; a reaped socket is told why, as far as it never had an answer, and shut down: libmicrohttpd, which writes nothing
 * before a request is whole, sees the end and closes it. An entry exists only while
 * its descriptor is open, since libmicrohttpd announces the end before it closes.
 */
#include "connections.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void connections_init(struct connections *connections, int encrypted)
{
	memset(connections, 0, sizeof *connections);
	connections->encrypted = encrypted;
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
	connection->answered = 1;
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

/* The 408 of a request that did not arrive. Does not wait: who has no room for it has not read anything either. */
static void say_late(int fd)
{
	static const char body[] = "{\"error\":\"The request did not arrive within 10 seconds.\"}\n";
	char answer[400];
	int n = snprintf(answer, sizeof answer,
			 "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json; "
			 "charset=utf-8\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
			 "X-Content-Type-Options: nosniff\r\n\r\n%s",
			 sizeof body - 1, body);

	send(fd, answer, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int64_t connections_reap(struct connections *connections, int64_t now_ms)
{
	int64_t next_ms = INT64_MAX;

	pthread_mutex_lock(&connections->mutex);
	for (struct connection *connection = connections->first; connection != NULL; connection = connection->next) {
		if (connection->deadline_ms <= now_ms) {
			if (!connection->answered && !connections->encrypted)
				say_late(connection->fd);
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
