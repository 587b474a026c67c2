/*
 * server.h -- the running exporter and one request: what the files of this directory share.
 *
 *   exporter.c     open and close, options                      any thread
 *   routes.c       libmicrohttpd, routing, checks               HTTP thread
 *   reply.c        every answer                                 HTTP thread
 *   metrics.c      /metrics, with variables.c and labels.c      HTTP thread
 *   status.c       /api/v1/status, regions, health              HTTP thread
 *   values.c       values, histories, blame                     HTTP thread
 *   feed.c         /api/v1/events and its stream                HTTP thread, woken by the pump
 *   pump.c         waits for events, wakes feeds, cuts clients  its own thread
 *   lines.c        events as JSON, json.c writes them           HTTP thread
 *   access.c ask.c digits.c floor.c query.c number.c text.c     pure
 */
#ifndef MEMWATCH_EXPORTER_SERVER_H
#define MEMWATCH_EXPORTER_SERVER_H

#include "http/access.h"
#include "feeds/ask.h"
#include "http/connections.h"
#include "metrics/floor.h"
#include "metrics/labels.h"
#include "feeds/lines.h"
#include "http/query.h"

#include <memwatch/exporter.h>
#include <memwatch/reader.h>
#include <microhttpd.h>
#include <pthread.h>
#include <sys/types.h>

enum handler {
	HANDLER_PAGE,
	HANDLER_METRICS,
	HANDLER_HEALTH,
	HANDLER_STATUS,
	HANDLER_REGIONS,
	HANDLER_EVENTS,
	HANDLER_STREAM,
	HANDLER_VALUES,
	HANDLER_OTHER,
	HANDLERS
};

enum { STATUS_CODES = 16, BACKENDS_MAX = 8 };

enum transport { TRANSPORT_SSE, TRANSPORT_NDJSON, TRANSPORT_LONG_POLL, TRANSPORTS };

/* The clients that stream or wait. */
struct feeds {
	pthread_mutex_t mutex; /* guards `first`, `stopping`, `newest`, and in each feed what struct feed says */
	struct feed *first;
	int stopping;
	uint64_t newest;                /* the newest seq that the pump has seen; written by it */
	unsigned n_clients[TRANSPORTS]; /* this and the counters: HTTP thread only */
	uint64_t n_sent, n_missed, n_rejected, n_cut;
};

struct pump {
	memwatch *watcher;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t wake;
	int running;    /* the thread exists */
	int nudged;     /* somebody has work for it; guarded by mutex */
	int stopping;   /* guarded by mutex */
	int woken;      /* memwatch_events_wake's: only the library touches it */
	int watcher_up; /* 0 once the watcher closes; atomic: written by the pump, read by the HTTP thread */
};

struct memwatch_exporter {
	memwatch *watcher;
	struct memwatch_exporter *next; /* in the list of exporter.c, for fork */
	pid_t pid;                      /* that opened it: in a forked child everything here is inert */
	struct access access;
	int metrics_need_token;
	uint32_t feed_limit, heartbeat_ms;
	char service[128];
	char url[ACCESS_TOKEN_MAX + 400];
	char *unix_socket; /* NULL: TCP */
	dev_t socket_dev;  /* the socket file that is ours to remove */
	ino_t socket_ino;
	char *discovery_file;     /* NULL: none */
	char *tls_cert, *tls_key; /* PEM text; libmicrohttpd keeps pointers into it */
	uint64_t epoch;
	char epoch_text[17];
	struct memwatch_backend_info backends[BACKENDS_MAX];
	int n_backends;
	struct MHD_Daemon *daemon;
	int listen_fd;
	struct connections connections;
	struct feeds feeds;
	struct pump pump;
	/* HTTP thread only */
	int named; /* the thread has its name */
	struct lines lines;
	struct labels labels;
	struct floor floor;
	struct text scrape; /* the last one's memory, used again */
	uint64_t scrape_ns; /* how long the last one took */
	uint64_t n_requests[HANDLERS][STATUS_CODES];
};

/* A client that streams, or waits in a long poll. */
struct feed {
	struct feed *next, *previous;
	struct memwatch_exporter *exporter;
	struct MHD_Connection *connection;
	enum transport transport;
	struct filter filter;
	uint64_t cursor; /* HTTP thread: the last seq looked at. Read by the pump, under the mutex, while suspended */
	int64_t deadline_ms; /* heartbeat, or end of the wait; likewise */
	int suspended;       /* guarded by the mutex */
	struct text out;     /* frames on their way; HTTP thread */
	size_t n_copied;
};

/* One request, from its target's arrival to the end of its answer. HTTP thread only. */
struct request {
	struct memwatch_exporter *exporter;
	struct MHD_Connection *connection;
	enum handler handler;
	int announced; /* the first call, with the headers alone, was there */
	int head;
	const char *wrong; /* what is wrong with the target; NULL: nothing */
	unsigned wrong_status;
	struct query query;
	struct access_headers headers;
	struct feed *feed; /* NULL: none */
	char uri[];
};

/* CLOCK_MONOTONIC. */
int64_t server_now_ms(void);
uint64_t server_now_ns(void);

#endif
