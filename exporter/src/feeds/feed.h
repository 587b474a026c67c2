/*
 * feed.h -- /api/v1/events: a page, a long poll, or a stream.
 */
#ifndef MEMWATCH_EXPORTER_FEED_H
#define MEMWATCH_EXPORTER_FEED_H

#include "server.h"

void feeds_init(struct feeds *feeds);
void feeds_fini(struct feeds *feeds);

/* HTTP thread: the two addresses. `feed_events` is called again for a request whose wait is over. */
enum MHD_Result feed_events(struct request *request);
enum MHD_Result feed_stream(struct request *request);

/* HTTP thread: the request is over. `cut`: because the client did not read. NULL is allowed. */
void feed_close(struct feed *feed, int cut);

/*
 * Pump: wakes whoever has something to read up to `newest`, or a heartbeat to send. Returns the next deadline,
 * INT64_MAX for none. `ret_n_suspended` is how many go on sleeping.
 */
int64_t feeds_wake(struct feeds *feeds, uint64_t newest, int64_t now_ms, unsigned *ret_n_suspended);

/* Any thread: ends all feeds, so that libmicrohttpd can be stopped. */
void feeds_stop(struct feeds *feeds);

#endif
