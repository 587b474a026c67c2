/*
 * connections.h -- the open connections: for cutting those whose request does not arrive, and for a forked child.
 */
#ifndef CONNECTIONS_H
#define CONNECTIONS_H

#include <stdbool.h>
#include <pthread.h>
#include <stdint.h>

enum {
	CONNECTION_FIRST_MS = 10000, /* for the first request to arrive whole */
	CONNECTION_NEXT_MS = 30000,  /* from the end of one request to the whole of the next */
	CONNECTION_READ_MS = 5000    /* in which a client must read something of its answer */
};

struct connection {
	struct connection *next, *previous;
	int fd;
	bool answered;       /* a request was: what is late is the next one, or nothing */
	bool answering;      /* a request is: what must go on is the client's reading */
	int64_t since_ms;    /* when the present wait began, or when the client was last seen to read */
	int64_t deadline_ms; /* for its request, or to be seen to read; INT64_MAX for a feed, which has its own */
	uint64_t progress;   /* how far the client had read then */
};

struct connections {
	pthread_mutex_t mutex; /* guards all below; written by the HTTP thread and the pump */
	struct connection *first;
	uint32_t limit;
	bool encrypted; /* we cannot write to the sockets ourselves; fixed */
	unsigned n_open;
	uint64_t n_cut;
};

/* `limit` is libmicrohttpd's: beyond it nobody is accepted. */
void connections_init(struct connections *connections, uint32_t limit, bool encrypted);
void connections_fini(struct connections *connections);

/*
 * NULL when memory ran out: the connection is served, but has no deadline. Cuts another where there would be no place
 * left.
 */
struct connection *connections_add(struct connections *connections, int fd, int64_t now_ms);
void connections_remove(struct connections *connections, struct connection *connection);

/* A request has arrived whole, and is answered; by a feed; it was answered. `connection` may be NULL. */
void connections_busy(struct connections *connections, struct connection *connection, int64_t now_ms);
void connections_feed(struct connections *connections, struct connection *connection);
void connections_idle(struct connections *connections, struct connection *connection, int64_t now_ms);

/*
 * Shuts the sockets down that are past their deadline, with a 408 where nothing was answered yet. Returns the next
 * deadline, INT64_MAX for none.
 */
int64_t connections_reap(struct connections *connections, int64_t now_ms);

/* The numbers for the metrics. */
void connections_count(struct connections *connections, uint64_t *ret_n_open, uint64_t *ret_n_cut);

#endif
