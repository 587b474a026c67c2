/*
 * connections.c -- DESIGN: the list of open connections, and when each of them has to end. The HTTP thread adds and
 * removes entries, the pump cuts.
 *
 * libmicrohttpd's timeout is one of inactivity: a client that sends one header byte a second keeps its place for ever.
 * So each connection has a deadline for its whole request. Where places run out, the one that has waited longest gives
 * way: nobody keeps a scrape out by connecting and saying nothing.
 *
 * A connection that is cut before it had any answer is told why. Then its socket is shut down; libmicrohttpd, which
 * writes nothing before a request is whole, sees the end and closes it. An entry exists only while its descriptor is
 * open, since libmicrohttpd announces the end before it closes.
 */
#include "connections.h"

#include "reply.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

void connections_init(struct connections *connections, uint32_t limit, bool encrypted)
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

/*
 * How far the client has read, as a number that changes when it reads: what TCP has had acknowledged, or what lies
 * unread in a Unix socket. `ret_unread`: there is something that it has still to read.
 */
static uint64_t read_progress(int fd, bool *ret_unread)
{
	struct tcp_info info = { 0 };
	socklen_t n_bytes = sizeof info;
	int n_unread = 0;
	*ret_unread = ioctl(fd, SIOCOUTQ, &n_unread) == 0 && n_unread > 0;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n_bytes) == 0)
		return info.tcpi_bytes_acked;
	return (uint64_t)n_unread;
}

/* Is it answered, and does not read? Notes when it was seen to. The mutex is held. */
static bool is_stalled(struct connection *connection, int64_t now_ms)
{
	bool unread;
	uint64_t progress = read_progress(connection->fd, &unread);
	if (unread && progress == connection->progress)
		return true;
	connection->progress = progress;
	connection->since_ms = now_ms;
	return false;
}

/*
 * Cuts a connection. The mutex is held. `status` and the sentence are for one that had no answer yet. What a client
 * does not read is thrown away with the connection (SO_LINGER), or the kernel would keep it.
 */
static void cut(struct connections *connections, struct connection *connection, unsigned status, const char *sentence)
{
	const struct linger discard = { .l_onoff = 1, .l_linger = 0 };
	char answer[400];
	if (!connection->answered && !connections->encrypted) {
		size_t n = reply_raw(answer, sizeof answer, status, sentence);
		send(connection->fd, answer, n, MSG_DONTWAIT | MSG_NOSIGNAL); /* no room: it reads nothing */
	}
	if (connection->answering)
		setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &discard, sizeof discard);
	shutdown(connection->fd, SHUT_RDWR);
	connection->deadline_ms = INT64_MAX;
	connections->n_cut++;
}

/*
 * Before one more: cuts the one that waits or does not read for longest, if no place were left for the next. The mutex
 * is held.
 */
static void make_room(struct connections *connections, int64_t now_ms)
{
	struct connection *oldest = NULL;
	if (connections->n_open + 1 < connections->limit)
		return;
	for (struct connection *one = connections->first; one; one = one->next) {
		if (one->deadline_ms == INT64_MAX || (oldest && one->since_ms > oldest->since_ms))
			continue;
		if (!one->answering || is_stalled(one, now_ms))
			oldest = one;
	}
	if (oldest)
		cut(connections, oldest, 503, "There are too many connections, and this one asked for nothing.");
}

struct connection *connections_add(struct connections *connections, int fd, int64_t now_ms)
{
	struct connection *connection = malloc(sizeof *connection);
	if (!connection)
		return NULL;
	*connection = (struct connection){ .fd = fd, .since_ms = now_ms, .deadline_ms = now_ms + CONNECTION_FIRST_MS };
	pthread_mutex_lock(&connections->mutex);
	make_room(connections, now_ms);
	connection->next = connections->first;
	if (connection->next)
		connection->next->previous = connection;
	connections->first = connection;
	connections->n_open++;
	pthread_mutex_unlock(&connections->mutex);
	return connection;
}

void connections_remove(struct connections *connections, struct connection *connection)
{
	if (!connection)
		return;
	pthread_mutex_lock(&connections->mutex);
	if (connection->next)
		connection->next->previous = connection->previous;
	if (connection->previous)
		connection->previous->next = connection->next;
	else
		connections->first = connection->next;
	connections->n_open--;
	pthread_mutex_unlock(&connections->mutex);
	free(connection);
}

static void set_deadline(struct connections *connections, struct connection *connection, int64_t now_ms,
			 int64_t deadline_ms, bool answering)
{
	bool unread;
	if (!connection)
		return;
	pthread_mutex_lock(&connections->mutex);
	connection->since_ms = now_ms;
	connection->deadline_ms = deadline_ms;
	connection->answered = true;
	connection->answering = answering;
	if (answering)
		connection->progress = read_progress(connection->fd, &unread);
	pthread_mutex_unlock(&connections->mutex);
}

void connections_busy(struct connections *connections, struct connection *connection, int64_t now_ms)
{
	set_deadline(connections, connection, now_ms, now_ms + CONNECTION_READ_MS, true);
}

void connections_feed(struct connections *connections, struct connection *connection)
{
	set_deadline(connections, connection, INT64_MAX, INT64_MAX, false);
}

void connections_idle(struct connections *connections, struct connection *connection, int64_t now_ms)
{
	set_deadline(connections, connection, now_ms, now_ms + CONNECTION_NEXT_MS, false);
}

/* It has not met its deadline, unless it was answered and has read since the last look. The mutex is held. */
static bool is_late(struct connection *connection, int64_t now_ms)
{
	if (connection->deadline_ms > now_ms)
		return false;
	if (!connection->answering || is_stalled(connection, now_ms))
		return true;
	connection->deadline_ms = now_ms + CONNECTION_READ_MS;
	return false;
}

int64_t connections_reap(struct connections *connections, int64_t now_ms)
{
	int64_t next_ms = INT64_MAX;
	pthread_mutex_lock(&connections->mutex);
	for (struct connection *connection = connections->first; connection; connection = connection->next) {
		if (is_late(connection, now_ms)) {
			cut(connections, connection, 408, "The request did not arrive within 10 seconds.");
		} else if (connection->deadline_ms < next_ms) {
			next_ms = connection->deadline_ms;
		}
	}
	pthread_mutex_unlock(&connections->mutex);
	return next_ms;
}

void connections_count(struct connections *connections, uint64_t *ret_n_open, uint64_t *ret_n_cut)
{
	pthread_mutex_lock(&connections->mutex);
	*ret_n_open = connections->n_open;
	*ret_n_cut = connections->n_cut;
	pthread_mutex_unlock(&connections->mutex);
}
