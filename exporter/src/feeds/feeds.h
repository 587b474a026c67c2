/*
 * feeds.h -- the clients that stream or wait.
 */
#ifndef FEEDS_H
#define FEEDS_H

#include "ask.h"
#include "format.h"
#include "http/request.h"
#include "nudge.h"
#include "text/text.h"

struct feeds {
	pthread_mutex_t mutex; /* guards `first`, `stopping`, `newest`, and in each feed what struct feed says */
	struct feed *first;
	bool stopping;
	uint64_t newest; /* the newest seq that the pump has seen; written by it */
	uint32_t limit;  /* fixed */
	uint32_t heartbeat_ms;
	struct nudge *nudge;
	unsigned n_clients[FORMATS]; /* this and the counters: HTTP thread only */
	uint64_t n_sent, n_missed, n_rejected, n_cut;
};

/* A client that streams, or waits in a long poll. */
struct feed {
	struct feed *next, *previous;
	struct memwatch_exporter *exporter;
	struct feeds *feeds;
	struct MHD_Connection *connection;
	const struct format *format;
	struct filter filter;
	uint64_t cursor; /* HTTP thread: the last seq looked at. Read by the pump, under the mutex, while suspended */
	int64_t deadline_ms; /* heartbeat, or end of the wait; likewise */
	bool suspended;      /* guarded by the mutex */
	struct text out;     /* frames on their way; HTTP thread */
	size_t n_copied;
};

void feeds_init(struct feeds *feeds, uint32_t limit, uint32_t heartbeat_ms, struct nudge *nudge);
void feeds_fini(struct feeds *feeds);

/* HTTP thread: the request's feed from now on; NULL when all places are taken, or memory is. */
struct feed *feeds_add(struct feeds *feeds, struct request *request, enum format_kind kind,
		       const struct filter *filter);

/* HTTP thread: the request is over. `cut`: because the client did not read. NULL is allowed. */
void feeds_remove(struct feed *feed, bool cut);

/* HTTP thread. 1: suspended. 0: there is something to look at first. -ESHUTDOWN: the exporter closes. */
int feeds_suspend(struct feed *feed);

/*
 * Pump: wakes whoever has something to read up to `newest`, or a heartbeat to send. Returns the next deadline,
 * INT64_MAX for none. `ret_n_suspended` is how many go on sleeping.
 */
int64_t feeds_wake(struct feeds *feeds, uint64_t newest, int64_t now_ms, unsigned *ret_n_suspended);

/* Any thread: ends all feeds, so that libmicrohttpd can be stopped. */
void feeds_stop(struct feeds *feeds);

/* Any thread: the oldest and the newest seq in the log. */
struct memwatch_cursor feeds_ends(memwatch *watcher);

#endif
