/*
 * feed.c -- the event feeds.
 *
 * DESIGN. A client is a cursor into the watcher's log and nothing else: no queue of its own, so that a slow client
 * costs nothing and the worker never knows. libmicrohttpd asks for more bytes only when the last ones are written. A
 * client that has read everything is suspended; the pump resumes it when there are events, or for a heartbeat, which
 * is also how a vanished client is noticed. What left the log before a client came to it is told as a gap.
 *
 * Two threads meet here: the HTTP thread runs everything but feeds_wake() and feeds_stop(), which the pump and the
 * closing thread call. `suspended` changes only under the mutex, together with the call that suspends or resumes:
 * resuming what is not suspended is undefined in libmicrohttpd. A feed is suspended only if the pump has
 * announced nothing beyond its cursor; the pump announces (`newest`) before it looks for sleepers: no wake-up is lost.
 */
#include "feed.h"

#include "ask.h"
#include "text/json.h"
#include "pump.h"
#include "http/reply.h"

#include <errno.h>
#include <stdlib.h>

enum {
	FILL_BYTES = 16 * 1024, /* frames that one call gathers */
	FILL_EVENTS = 2048,     /* events that one call looks at */
	PAGE_LOOKED_AT_MAX = 65536,
	PAGE_BYTES_MAX = 4 << 20,
	RETRY_MS = 2000,
	CUT_MIN_S = 5 /* a client is not cut sooner, however short the heartbeat */
};

void feeds_init(struct feeds *feeds)
{
	memset(feeds, 0, sizeof *feeds);
	pthread_mutex_init(&feeds->mutex, NULL);
}

void feeds_fini(struct feeds *feeds)
{
	pthread_mutex_destroy(&feeds->mutex);
}

/* The oldest and the newest seq in the log. */
static struct memwatch_cursor log_ends(struct memwatch_exporter *exporter)
{
	const struct memwatch_event *none[1];
	struct memwatch_cursor cursor = { 0 };

	memwatch_events_read(exporter->watcher, 0, none, 0, &cursor);
	return cursor;
}

/* --- suspending ------------------------------------------------------------------------------------------------- */

static struct feed *feed_open(struct request *request, enum transport transport, const struct filter *filter)
{
	struct feeds *feeds = &request->exporter->feeds;
	unsigned n = 0;
	struct feed *feed;

	for (unsigned i = 0; i < TRANSPORTS; i++)
		n += feeds->n_clients[i];
	if (n >= request->exporter->feed_limit) {
		feeds->n_rejected++;
		return NULL;
	}
	feed = calloc(1, sizeof *feed);
	if (feed == NULL)
		return NULL;
	feed->exporter = request->exporter;
	feed->connection = request->connection;
	feed->transport = transport;
	feed->filter = *filter;
	feeds->n_clients[transport]++;
	pthread_mutex_lock(&feeds->mutex);
	feed->next = feeds->first;
	if (feed->next != NULL)
		feed->next->previous = feed;
	feeds->first = feed;
	pthread_mutex_unlock(&feeds->mutex);
	request->feed = feed;
	return feed;
}

void feed_close(struct feed *feed, int cut)
{
	struct feeds *feeds;

	if (feed == NULL)
		return;
	feeds = &feed->exporter->feeds;
	pthread_mutex_lock(&feeds->mutex);
	if (feed->next != NULL)
		feed->next->previous = feed->previous;
	if (feed->previous != NULL)
		feed->previous->next = feed->next;
	else
		feeds->first = feed->next;
	pthread_mutex_unlock(&feeds->mutex);
	feeds->n_clients[feed->transport]--;
	feeds->n_cut += cut != 0;
	text_fini(&feed->out);
	free(feed);
}

/* 1: suspended. 0: there is something to look at first. -ESHUTDOWN: the exporter closes. */
static int feed_suspend(struct feed *feed)
{
	struct feeds *feeds = &feed->exporter->feeds;
	int result = 0;

	pthread_mutex_lock(&feeds->mutex);
	if (feeds->stopping) {
		result = -ESHUTDOWN;
	} else if (feeds->newest <= feed->cursor) {
		feed->suspended = 1;
		MHD_suspend_connection(feed->connection);
		result = 1;
	}
	pthread_mutex_unlock(&feeds->mutex);
	if (result == 1)
		pump_nudge(&feed->exporter->pump);
	return result;
}

int64_t feeds_wake(struct feeds *feeds, uint64_t newest, int64_t now_ms, unsigned *ret_n_suspended)
{
	int64_t next_ms = INT64_MAX;
	unsigned n = 0;

	pthread_mutex_lock(&feeds->mutex);
	feeds->newest = newest;
	for (struct feed *feed = feeds->first; feed != NULL; feed = feed->next) {
		if (!feed->suspended)
			continue;
		if (feed->cursor < newest || feed->deadline_ms <= now_ms || feeds->stopping) {
			feed->suspended = 0;
			MHD_resume_connection(feed->connection);
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
	feeds->stopping = 1;
	for (struct feed *feed = feeds->first; feed != NULL; feed = feed->next) {
		if (feed->suspended) {
			feed->suspended = 0;
			MHD_resume_connection(feed->connection);
		}
	}
	pthread_mutex_unlock(&feeds->mutex);
}

/* --- pages and long polls --------------------------------------------------------------------------------------- */

struct page {
	struct text lines; /* joined by `separator` */
	char separator;
	uint64_t next, missed, n_events;
};

/*
 * Gathers up to `limit` events after page->next. 0 or -errno. Who asks for all that is kept has missed nothing, as far
 * as the metrics are concerned.
 */
static int fill_page(struct memwatch_exporter *exporter, const struct ask *ask, struct page *page)
{
	const struct line *line;
	const uint64_t since = page->next;
	uint64_t missed, n_looked_at = 0;
	int more = 1;

	while (page->n_events < ask->limit && n_looked_at++ < PAGE_LOOKED_AT_MAX &&
	       page->lines.n_bytes < PAGE_BYTES_MAX) {
		more = lines_next(&exporter->lines, page->next, &line, &missed);
		if (more <= 0)
			break;
		page->missed += missed;
		page->next = line->seq;
		if (!ask_matches(&ask->filter, line))
			continue;
		if (page->n_events++ > 0)
			text_char(&page->lines, page->separator);
		text_bytes(&page->lines, line->text.data, line->json_bytes);
	}
	if (since > 0)
		exporter->feeds.n_missed += page->missed;
	exporter->feeds.n_sent += page->n_events;
	return more < 0 ? more : 0;
}

static void page_numbers(struct text *text, const struct memwatch_exporter *exporter,
			 const struct memwatch_cursor *ends)
{
	json_u64(text, "schema", JSON_SCHEMA);
	json_string(text, "epoch", exporter->epoch_text);
	json_u64(text, "oldest", ends->oldest);
	json_u64(text, "newest", ends->newest);
}

static enum MHD_Result reply_json_page(struct request *request, const struct page *page,
				       const struct memwatch_cursor *ends)
{
	struct text text = { 0 };
	enum MHD_Result result;

	text_char(&text, '{');
	page_numbers(&text, request->exporter, ends);
	json_u64(&text, "next", page->next);
	json_u64(&text, "missed", page->missed);
	json_key(&text, "events");
	text_char(&text, '[');
	text_bytes(&text, page->lines.data, page->lines.n_bytes);
	text_string(&text, "]}\n");
	text.failed |= page->lines.failed;
	result = reply_text(request, 200, REPLY_JSON, &text);
	text_fini(&text);
	return result;
}

static void number_header(struct MHD_Response *response, const char *name, uint64_t value)
{
	struct text text = { 0 };

	text_u64(&text, value);
	text_char(&text, '\0');
	if (!text.failed)
		reply_header(response, name, text.data);
	text_fini(&text);
}

static enum MHD_Result reply_ndjson_page(struct request *request, struct page *page, const struct memwatch_cursor *ends)
{
	struct MHD_Response *response = NULL;

	if (page->n_events > 0)
		text_char(&page->lines, '\n');
	if (!page->lines.failed)
		response =
			MHD_create_response_from_buffer(page->lines.n_bytes, page->lines.data, MHD_RESPMEM_MUST_COPY);
	reply_header(response, "Memwatch-Epoch", request->exporter->epoch_text);
	number_header(response, "Memwatch-Oldest", ends->oldest);
	number_header(response, "Memwatch-Newest", ends->newest);
	number_header(response, "Memwatch-Next", page->next);
	number_header(response, "Memwatch-Missed", page->missed);
	return reply_queue(request, 200, REPLY_NDJSON, response);
}

static enum MHD_Result reply_gone(struct request *request, const char *sentence, const struct memwatch_cursor *ends)
{
	struct text text = { 0 };
	enum MHD_Result result;

	text_char(&text, '{');
	json_string(&text, "error", sentence);
	page_numbers(&text, request->exporter, ends);
	text_string(&text, "}\n");
	result = reply_text(request, 410, REPLY_JSON, &text);
	text_fini(&text);
	return result;
}

/* May this request wait for an event after page->next? 1: it sleeps; 0: look again; -errno: answer now. */
static int wait_for_page(struct request *request, const struct ask *ask, const struct page *page)
{
	struct feed *feed = request->feed;
	int64_t now_ms = server_now_ms();

	if (page->n_events > 0 || page->missed > 0 || ask->wait_ms == 0 || request->head)
		return -ENODATA;
	if (feed == NULL) {
		feed = feed_open(request, TRANSPORT_LONG_POLL, &ask->filter);
		if (feed == NULL)
			return -EBUSY;
		feed->deadline_ms = now_ms + ask->wait_ms;
	}
	if (now_ms >= feed->deadline_ms)
		return -ETIMEDOUT;
	feed->cursor = page->next;
	return feed_suspend(feed);
}

static enum MHD_Result reply_page(struct request *request, const struct ask *ask, uint64_t since, int ndjson)
{
	struct page page = { .next = since, .separator = ndjson ? '\n' : ',' };
	struct memwatch_cursor ends;
	enum MHD_Result result;
	int error, waiting;

	do {
		error = fill_page(request->exporter, ask, &page);
		waiting = error < 0 ? error : wait_for_page(request, ask, &page);
		if (waiting == 1)
			return MHD_YES;
	} while (waiting == 0);
	feed_close(request->feed, 0);
	request->feed = NULL;
	ends = log_ends(request->exporter);
	if (error < 0)
		result = reply_error(request, 503, "The events cannot be read now.");
	else if (waiting == -EBUSY)
		result = reply_error(request, 503, "All feed places are taken: try again later, or poll without wait.");
	else if (ndjson)
		result = reply_ndjson_page(request, &page, &ends);
	else
		result = reply_json_page(request, &page, &ends);
	text_fini(&page.lines);
	return result;
}

/* 1: NDJSON, 0: JSON, -ENOTSUP: neither. */
static int wants_ndjson(const char *accept)
{
	int json = query_accept(accept, "application/json"), ndjson = query_accept(accept, "application/x-ndjson");

	if (json == 0 && ndjson == 0)
		return -ENOTSUP;
	return ndjson > json;
}

enum MHD_Result feed_events(struct request *request)
{
	static const char *const names[] = { "since", "epoch", "name", "from_ms", "to_ms", "limit", "wait", NULL };
	const char *accept = request->headers.accept, *wrong = query_check(&request->query, names, "name");
	int ndjson = wants_ndjson(accept);
	struct memwatch_cursor ends;
	struct ask ask;

	if (accept != NULL && query_accept(accept, "text/event-stream") > query_accept(accept, "application/json") &&
	    ndjson <= 0)
		return feed_stream(request);
	if (ndjson < 0)
		return reply_error(
			request, 406,
			"Events are served as application/json, application/x-ndjson and text/event-stream.");
	if (wrong == NULL)
		wrong = ask_read(&request->query, &ask);
	if (wrong != NULL)
		return reply_error(request, 400, wrong);
	if (request->feed != NULL)
		return reply_page(request, &ask, request->feed->cursor, ndjson);
	ends = log_ends(request->exporter);
	if (ask.epoch != NULL && strcmp(ask.epoch, request->exporter->epoch_text) != 0)
		return reply_gone(
			request, "The watcher was opened anew and its numbering began again: start over without since.",
			&ends);
	if (ask.since > ends.newest)
		return reply_gone(
			request,
			"since is ahead of the newest event: the watcher was opened anew, or the number is wrong.",
			&ends);
	return reply_page(request, &ask, ask.latest ? ends.newest : ask.since, ndjson);
}

/* --- streams ---------------------------------------------------------------------------------------------------- */

/* `id: <epoch>-<seq>`, which a browser sends back as Last-Event-ID. */
static void sse_id(struct feed *feed, uint64_t seq)
{
	text_string(&feed->out, "id: ");
	text_string(&feed->out, feed->exporter->epoch_text);
	text_char(&feed->out, '-');
	text_u64(&feed->out, seq);
	text_char(&feed->out, '\n');
}

static void frame_event(struct feed *feed, const struct line *line)
{
	if (feed->transport == TRANSPORT_SSE) {
		sse_id(feed, line->seq);
		text_string(&feed->out, "event: change\ndata: ");
	}
	text_bytes(&feed->out, line->text.data, line->json_bytes);
	text_string(&feed->out, feed->transport == TRANSPORT_SSE ? "\n\n" : "\n");
	feed->exporter->feeds.n_sent++;
}

/* Begins a frame that is no event; its object's members follow, then frame_end(). */
static void frame_begin(struct feed *feed, const char *kind, uint64_t seq)
{
	if (feed->transport == TRANSPORT_SSE) {
		sse_id(feed, seq);
		text_string(&feed->out, "event: ");
		text_string(&feed->out, kind);
		text_string(&feed->out, "\ndata: ");
	}
	text_char(&feed->out, '{');
	json_string(&feed->out, "kind", kind);
	json_string(&feed->out, "epoch", feed->exporter->epoch_text);
}

static void frame_end(struct feed *feed)
{
	text_string(&feed->out, feed->transport == TRANSPORT_SSE ? "}\n\n" : "}\n");
}

static void frame_gap(struct feed *feed, uint64_t first, uint64_t n)
{
	frame_begin(feed, "gap", first + n - 1);
	json_u64(&feed->out, "from", first);
	json_u64(&feed->out, "to", first + n - 1);
	json_u64(&feed->out, "missed", n);
	frame_end(feed);
	if (first > 1)
		feed->exporter->feeds.n_missed += n;
}

static void frame_reset(struct feed *feed, const struct memwatch_cursor *ends)
{
	frame_begin(feed, "reset", feed->cursor);
	json_u64(&feed->out, "oldest", ends->oldest);
	json_u64(&feed->out, "newest", ends->newest);
	frame_end(feed);
}

/* A sign of life that moves the client's cursor past what its filter left out. */
static void frame_bookmark(struct feed *feed)
{
	if (feed->transport == TRANSPORT_SSE) {
		text_string(&feed->out, ": heartbeat\n");
		sse_id(feed, feed->cursor);
		text_char(&feed->out, '\n');
		return;
	}
	frame_begin(feed, "bookmark", feed->cursor);
	json_u64(&feed->out, "seq", feed->cursor);
	frame_end(feed);
}

/* Gathers frames. 1: there may be more; 0: all read; -errno. */
static int feed_fill(struct feed *feed)
{
	const struct line *line;
	uint64_t missed;
	int more = 1;

	for (int i = 0; i < FILL_EVENTS && feed->out.n_bytes < FILL_BYTES; i++) {
		more = lines_next(&feed->exporter->lines, feed->cursor, &line, &missed);
		if (more <= 0)
			break;
		if (missed > 0)
			frame_gap(feed, feed->cursor + 1, missed);
		feed->cursor = line->seq;
		if (ask_matches(&feed->filter, line))
			frame_event(feed, line);
	}
	if (feed->out.n_bytes == 0 && server_now_ms() >= feed->deadline_ms)
		frame_bookmark(feed);
	if (feed->out.n_bytes > 0)
		feed->deadline_ms = server_now_ms() + feed->exporter->heartbeat_ms;
	return feed->out.failed ? -ENOMEM : more;
}

/*
 * libmicrohttpd's reader. Returning 0 without being suspended means "call me again": only while there are events to
 * look at, since it would spin otherwise.
 */
static ssize_t feed_read(void *cls, uint64_t position, char *buffer, size_t max)
{
	struct feed *feed = cls;
	size_t n;
	int more;

	(void)position;
	if (feed->n_copied == feed->out.n_bytes) {
		feed->out.n_bytes = feed->n_copied = 0;
		more = feed_fill(feed);
		if (more < 0)
			return MHD_CONTENT_READER_END_WITH_ERROR;
		if (feed->out.n_bytes == 0) {
			text_fini(&feed->out);
			if (more == 0 && feed_suspend(feed) < 0)
				return MHD_CONTENT_READER_END_OF_STREAM;
			return 0;
		}
	}
	n = feed->out.n_bytes - feed->n_copied;
	n = n < max ? n : max;
	memcpy(buffer, feed->out.data + feed->n_copied, n);
	feed->n_copied += n;
	return (ssize_t)n;
}

/* "epoch-seq" into its parts: 0 or -EINVAL. */
static int read_event_id(const struct memwatch_exporter *exporter, const char *id, uint64_t *ret_seq)
{
	if (strncmp(id, exporter->epoch_text, 16) != 0 || id[16] != '-')
		return -EINVAL;
	return query_u64(id + 17, QUERY_SEQ_MAX, ret_seq);
}

/* Sets where the stream begins: after the last event that the client has, or with a reset when that is unknown here. */
static void feed_start(struct feed *feed, const struct request *request, const struct ask *ask)
{
	struct memwatch_exporter *exporter = feed->exporter;
	const struct memwatch_cursor ends = log_ends(exporter);
	uint64_t since = ask->has_since && !ask->latest ? ask->since : ends.newest;
	int known = ask->epoch == NULL || strcmp(ask->epoch, exporter->epoch_text) == 0;

	if (request->headers.last_event_id != NULL && request->headers.last_event_id[0] != '\0')
		known = read_event_id(exporter, request->headers.last_event_id, &since) == 0;
	known = known && since <= ends.newest;
	feed->cursor = known ? since : ends.oldest - (ends.oldest > 0);
	if (feed->transport == TRANSPORT_SSE) {
		text_string(&feed->out, "retry: ");
		text_u64(&feed->out, RETRY_MS);
		text_string(&feed->out, "\n\n");
	}
	if (known)
		frame_bookmark(feed);
	else
		frame_reset(feed, &ends);
	feed->deadline_ms = server_now_ms() + exporter->heartbeat_ms;
}

/* Streams have no length: libmicrohttpd sends them in chunks. A client that takes nothing for two heartbeats is cut. */
static enum MHD_Result reply_stream(struct request *request, const char *type)
{
	struct MHD_Response *response =
		MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 32 * 1024, feed_read, request->feed, NULL);
	unsigned timeout_s = request->exporter->heartbeat_ms / 500;

	MHD_set_connection_option(request->connection, MHD_CONNECTION_OPTION_TIMEOUT,
				  timeout_s < CUT_MIN_S ? CUT_MIN_S : timeout_s);
	reply_header(response, "X-Accel-Buffering", "no");
	return reply_queue(request, 200, type, response);
}

enum MHD_Result feed_stream(struct request *request)
{
	static const char *const names[] = { "since", "epoch", "name", "from_ms", "to_ms", NULL };
	const char *accept = request->headers.accept, *wrong = query_check(&request->query, names, "name");
	int sse = query_accept(accept, "text/event-stream"), ndjson = query_accept(accept, "application/x-ndjson");
	const char *type = ndjson > sse ? REPLY_NDJSON : REPLY_SSE;
	struct feed *feed;
	struct ask ask;

	if (sse == 0 && ndjson == 0)
		return reply_error(request, 406, "The stream is served as text/event-stream and application/x-ndjson.");
	if (wrong == NULL)
		wrong = ask_read(&request->query, &ask);
	if (wrong != NULL)
		return reply_error(request, 400, wrong);
	if (request->head)
		return reply_constant(request, 200, type, "", 0);
	feed = feed_open(request, ndjson > sse ? TRANSPORT_NDJSON : TRANSPORT_SSE, &ask.filter);
	if (feed == NULL)
		return reply_error(request, 503, "All feed places are taken: try again later.");
	feed_start(feed, request, &ask);
	return reply_stream(request, type);
}
