/*
 * server.h -- the running exporter. What the files at the top know, and of each folder those that answer requests.
 *
 *   exporter.c options.c error.c clock.c   open and close                        any thread
 *   routes.c                               libmicrohttpd, routing, checks        HTTP thread
 *   status.c values.c sinks.c              what is watched, its past             HTTP thread
 *   discovery.c stale.c identity.c         how tools find us, and our names      opening thread
 *   metrics/                               /metrics                              HTTP thread
 *   feeds/                                 /api/v1/events and its stream         HTTP thread, woken by the pump
 *   feeds/pump.c                           waits, wakes feeds, cuts clients      its own thread
 *   http/                                  requests, replies, connections        HTTP thread
 *   text/                                  numbers, names, JSON                  pure
 *
 * A folder includes itself, what is below it in this list, and this header.
 */
#ifndef SERVER_H
#define SERVER_H

#include "discovery.h"
#include "identity.h"
#include "feeds/feeds.h"
#include "feeds/lines.h"
#include "feeds/pump.h"
#include "http/access.h"
#include "http/codes.h"
#include "http/connections.h"
#include "http/request.h"
#include "metrics/floor.h"
#include "metrics/labels.h"

#include <memwatch/exporter.h>
#include <sys/types.h>

enum { BACKENDS_MAX = 8 };

/* What clients without rights get of the metrics. */
struct open_scrape {
	struct text text;
	int64_t made_ms;
};

struct memwatch_exporter {
	memwatch *watcher;
	struct memwatch_exporter *next; /* in the list of exporter.c, for fork */
	pid_t pid;                      /* that opened it: in a forked child everything here is inert */
	struct access access;
	struct identity identity;
	char address[400];         /* of the page; "" for a Unix socket */
	char urls[CODES_MAX][480]; /* with a one-time code each; guarded by url_mutex */
	unsigned next_url;         /* likewise */
	pthread_mutex_t url_mutex;
	struct codes codes;
	char *unix_socket; /* NULL: TCP */
	dev_t socket_dev;  /* the socket file that is ours to remove */
	ino_t socket_ino;
	struct discovery discovery;
	char *tls_cert, *tls_key; /* PEM text; libmicrohttpd keeps pointers into it */
	uint64_t epoch;
	char epoch_text[17];
	struct memwatch_backend_info backends[BACKENDS_MAX];
	int n_backends;
	struct MHD_Daemon *daemon;
	int listen_fd;
	int other_fd; /* holds the port on the other loopback address; -1: none */
	struct connections connections;
	struct feeds feeds;
	struct pump pump;
	/* HTTP thread only */
	bool named; /* the thread has its name */
	struct lines lines;
	struct labels labels;
	struct floor floor;
	struct text scrape;                 /* the last one's memory, used again */
	struct open_scrape open_scrapes[2]; /* by dialect */
	uint64_t scrape_ns;                 /* how long the last one took */
	struct request_counts requests;
};

#endif
