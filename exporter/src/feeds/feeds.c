/*
 * feeds.c -- DESIGN: the set of clients that stream or wait, and their sleep. A client is a cursor into the watcher's
 * log and nothing else: it has no queue of its own, so a slow client costs nothing and the worker never knows.
 *
 * Two threads meet here. The HTTP thread adds, suspends and removes; the pump wakes; the closing thread stops.
 * `suspended` changes only under the mutex, together with the call that suspends or resumes: resuming what is not
 * suspended is undefined in libmicrohttpd. A feed is suspended only if the pump has announced nothing beyond its
 * cursor. The pump announces (`newest`) before it looks for sleepers. So no wake-up is lost.
 */
#include "feeds.h"

#include <errno.h>
#include <stdlib.h>

void feeds_init(struct feeds *feeds, uint32_t limit, uint32_t heartbeat_ms, struct nudge *nudge)
{
	memset(feeds, 0, sizeof *feeds);
	feeds->limit = limit;
	feeds->heartbeat_ms = heartbeat_ms;
	feeds->nudge = nudge;
	pthread_mutex_init(&feeds->mutex, NULL);
}

void feeds_fini(struct feeds *feeds)
{
	pthread_mutex_destroy(&feeds->mutex);
}

struct memwatch_cursor feeds_ends(memwatch *watcher)
{
	const struct memwatch_event *none[1];
	struct memwatch_cursor cursor = { 0 };
	memwatch_events_read(watcher, 0, none, 0, &cursor);
	return cursor;
}

static unsigned count_clients(const struct feeds *feeds)
{
	unsigned n = 0;
	for (unsigned i = 0; i < FORMATS; i++)
		n += feeds->n_clients[i];
	return n;
}

static void link_feed(struct feeds *feeds, struct feed *feed)
{
	pthread_mutex_lock(&feeds->mutex);
	feed->next = feeds->first;
	if (feed->next)
		feed->next->previous = feed;
	feeds->first = feed;
	pthread_mutex_unlock(&feeds->mutex);
}

static void unlink_feed(struct feeds *feeds, struct feed *feed)
{
	pthread_mutex_lock(&feeds->mutex);
	if (feed->next)
		feed->next->previous = feed->previous;
	if (feed->previous)
		feed->previous->next = feed->next;
	else
		feeds->first = feed->next;
	pthread_mutex_unlock(&feeds->mutex);
}

struct feed *feeds_add(struct feeds *feeds, struct request *request, enum format_kind kind, const struct filter *filter)
{
	if (count_clients(feeds) >= feeds->limit) {
		feeds->n_rejected++;
		return NULL;
	}
	struct feed *feed = calloc(1, sizeof *feed);
	if (!feed)
		return NULL;
	feed->exporter = request->exporter;
	feed->feeds = feeds;
	feed->connection = request->connection;
	feed->format = &formats[kind];
	feed->filter = *filter;
	feeds->n_clients[kind]++;
	link_feed(feeds, feed);
	request->feed = feed;
	return feed;
}

void feeds_remove(struct feed *feed, bool cut)
{
	if (!feed)
		return;
	struct feeds *feeds = feed->feeds;
	unlink_feed(feeds, feed);
	feeds->n_clients[feed->format - formats]--;
	feeds->n_cut += cut;
	text_fini(&feed->out);
	free(feed);
}

int feeds_suspend(struct feed *feed)
{
	struct feeds *feeds = feed->feeds;
	int result = 0;
	pthread_mutex_lock(&feeds->mutex);
	if (feeds->stopping) {
		result = -ESHUTDOWN;
	} else if (feeds->newest <= feed->cursor) {
		feed->suspended = true;
		MHD_suspend_connection(feed->connection);
		result = 1;
	}
	pthread_mutex_unlock(&feeds->mutex);
	if (result == 1)
		nudge_give(feeds->nudge);
	return result;
}

/* The mutex is held. */
static void resume(struct feed *feed)
{
	feed->suspended = false;
	MHD_resume_connection(feed->connection);
}

int64_t feeds_wake(struct feeds *feeds, uint64_t newest, int64_t now_ms, unsigned *ret_n_suspended)
{
	int64_t next_ms = INT64_MAX;
	unsigned n = 0;
	pthread_mutex_lock(&feeds->mutex);
	feeds->newest = newest;
	for (struct feed *feed = feeds->first; feed; feed = feed->next) {
		if (!feed->suspended)
			continue;
		if (feed->cursor < newest || feed->deadline_ms <= now_ms || feeds->stopping) {
			resume(feed);
			continue;
		}
		n++;
		if (feed->deadline_ms < next_ms)
			next_ms = feed->deadline_ms;
	}
	pthread_mutex_unlock(&feeds->mutex);
	*ret_n_suspended = n;
	return next_ms;
}

void feeds_stop(struct feeds *feeds)
{
	pthread_mutex_lock(&feeds->mutex);
	feeds->stopping = true;
	for (struct feed *feed = feeds->first; feed; feed = feed->next) {
		if (feed->suspended)
			resume(feed);
	}
	pthread_mutex_unlock(&feeds->mutex);
}
