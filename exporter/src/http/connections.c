/*
 * connections.c -- the list of open connections.
 *
 * DESIGN. libmicrohttpd's timeout is one of inactivity: a client that sends one header byte a second keeps its place
 * for ever. So each connection has a deadline for its whole request, and where places run out the one that waits longest
 * gives way: nobody keeps a scrape out by connecting and saying nothing. The HTTP thread adds and removes entries, the
 * pump reaps; a reaped socket is told why, as far as it never had an answer, and shut down: libmicrohttpd, which writes nothing
 * before a request is whole, sees the end and closes it. An entry exists only while
 * its descriptor is open, since libmicrohttpd announces the end before it closes.
 */
#include "connections.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void connections_init(struct connections *connections, uint32_t limit, int encrypted)
{
	memset(connections, 0, sizeof *connections);
	connections->limit = limit;
	connections->encrypted = encrypted;
	pthread_mutex_init(&connections->mutex, NULL);
}

void connections_fini(struct connections *connections)
{
	pthread_mutex_destroy(&connections->mutex);
}

/* Cuts a connection that waits for a request. The mutex is held. `status` and the sentence are for one that had no answer yet. */
static void cut(struct connections *connections, struct connection *connection, const char *status,
		const char *sentence)
{
	char answer[400];
	int n;

	if (!connection->answered && !connections->encrypted) {
		n = snprintf(answer, sizeof answer,
			     "HTTP/1.1 %s\r\nConnection: close\r\nContent-Type: application/json; charset=utf-8\r\n"
			     "Content-Length: %zu\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n"
			     "{\"error\":\"%s\"}\n",
			     status, strlen(sentence) + strlen("{\"error\":\"\"}\n"), sentence);
		send(connection->fd, answer, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL); /* no room: it reads nothing */
	}
	shutdown(connection->fd, SHUT_RDWR);
	connection->deadline_ms = INT64_MAX;
	connections->n_cut++;
}

/* Before one more: cuts the one that waits longest, if no place were left for the next. The mutex is held. */
static void make_room(struct connections *connections)
{
	struct connection *oldest = NULL;

	if (connections->n_open + 1 < connections->limit)
		return;
	for (struct connection *one = connections->first; one != NULL; one = one->next) {
		if (one->deadline_ms != INT64_MAX && (oldest == NULL || one->deadline_ms <= oldest->deadline_ms))
			oldest = one;
	}
	if (oldest != NULL)
		cut(connections, oldest, "503 Service Unavailable",
		    "There are too many connections, and this one asked for nothing.");
}

struct connection *connections_add(struct connections *connections, int fd, int64_t now_ms)
{
	struct connection *connection = malloc(sizeof *connection);

	if (connection == NULL)
		return NULL;
	*connection = (struct connection){ .fd = fd, .deadline_ms = now_ms + CONNECTION_FIRST_MS };
	pthread_mutex_lock(&connections->mutex);
	make_room(connections);
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

int64_t connections_reap(struct connections *connections, int64_t now_ms)
{
	int64_t next_ms = INT64_MAX;

	pthread_mutex_lock(&connections->mutex);
	for (struct connection *connection = connections->first; connection != NULL; connection = connection->next) {
		if (connection->deadline_ms <= now_ms) {
			cut(connections, connection, "408 Request Timeout",
			    "The request did not arrive within 10 seconds.");
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
