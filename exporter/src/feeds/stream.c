/*
 * stream.c -- DESIGN: /api/v1/events/stream: events as they happen, in a format of format.c. HTTP thread.
 *
 * libmicrohttpd asks for more bytes only when the last ones are written. A client that has read everything is
 * suspended. The pump resumes it when there are events, or for a heartbeat, which is also how a vanished client is
 * noticed. What left the log before the client came to it is told as a gap.
 */
#include "stream.h"

#include "clock.h"
#include "http/reply.h"
#include "server.h"
#include "text/json.h"

#include <errno.h>

enum {
	FILL_BYTES = 16 * 1024, /* frames that one call gathers */
	FILL_EVENTS = 2048,     /* events that one call looks at */
	CUT_MIN_S = 5           /* a client is not cut sooner, however short the heartbeat */
};

/* Begins a frame that is no event; its object's members follow, then end_frame(). */
static void begin_frame(struct feed *feed, const char *kind, uint64_t seq)
{
	const char *epoch = feed->exporter->epoch_text;
	feed->format->begin(&feed->out, kind, epoch, seq);
	text_char(&feed->out, '{');
	json_string(&feed->out, "kind", kind);
	json_string(&feed->out, "epoch", epoch);
}

static void end_frame(struct feed *feed)
{
	text_char(&feed->out, '}');
	text_string(&feed->out, feed->format->end);
}

static void write_event(struct feed *feed, const struct line *line)
{
	feed->format->begin(&feed->out, "change", feed->exporter->epoch_text, line->seq);
	text_bytes(&feed->out, line->text.data, line->json_bytes);
	text_string(&feed->out, feed->format->end);
	feed->feeds->n_sent++;
}

static void write_gap(struct feed *feed, uint64_t first, uint64_t n)
{
	begin_frame(feed, "gap", first + n - 1);
	json_u64(&feed->out, "from", first);
	json_u64(&feed->out, "to", first + n - 1);
	json_u64(&feed->out, "missed", n);
	end_frame(feed);
	if (first > 1)
		feed->feeds->n_missed += n;
}

static void write_reset(struct feed *feed, const struct memwatch_cursor *ends)
{
	begin_frame(feed, "reset", feed->cursor);
	json_u64(&feed->out, "oldest", ends->oldest);
	json_u64(&feed->out, "newest", ends->newest);
	end_frame(feed);
}

static void write_bookmark(struct feed *feed)
{
	feed->format->bookmark(&feed->out, feed->exporter->epoch_text, feed->cursor);
}

/* Gathers frames. 1: there may be more; 0: all read; -errno. */
static int fill(struct feed *feed)
{
	const struct line *line;
	uint64_t missed;
	const int64_t end_ms = clock_now_ms() + ASK_LOOK_MS;
	int more = 1;
	for (int i = 0; i < FILL_EVENTS && feed->out.n_bytes < FILL_BYTES; i++) {
		more = lines_next(&feed->exporter->lines, feed->cursor, &line, &missed);
		if (more <= 0)
			break;
		if (missed > 0)
			write_gap(feed, feed->cursor + 1, missed);
		feed->cursor = line->seq;
		if (ask_matches_line(&feed->filter, line))
			write_event(feed, line);
		else if (i % ASK_LOOK_EVERY == 0 && clock_now_ms() >= end_ms)
			break;
	}
	if (feed->out.n_bytes == 0 && clock_now_ms() >= feed->deadline_ms)
		write_bookmark(feed);
	if (feed->out.n_bytes > 0)
		feed->deadline_ms = clock_now_ms() + feed->feeds->heartbeat_ms;
	return feed->out.failed ? -ENOMEM : more;
}

/*
 * libmicrohttpd's reader. Returning 0 without being suspended means "call me again": only while there are events to
 * look at, since it would spin otherwise.
 */
static ssize_t read_stream(void *cls, uint64_t position, char *buffer, size_t max)
{
	struct feed *feed = cls;
	int more;
	(void)position;
	if (feed->n_copied == feed->out.n_bytes) {
		feed->out.n_bytes = feed->n_copied = 0;
		more = fill(feed);
		if (more < 0)
			return MHD_CONTENT_READER_END_WITH_ERROR;
		if (feed->out.n_bytes == 0) {
			text_fini(&feed->out);
			if (more == 0 && feeds_suspend(feed) < 0)
				return MHD_CONTENT_READER_END_OF_STREAM;
			return 0;
		}
	}
	size_t n = feed->out.n_bytes - feed->n_copied;
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
static void begin_stream(struct feed *feed, const struct request *request, const struct ask *ask)
{
	struct memwatch_exporter *exporter = feed->exporter;
	const struct memwatch_cursor ends = feeds_ends(exporter->watcher);
	uint64_t since = ask->has_since && !ask->latest ? ask->since : ends.newest;
	bool known = !ask->epoch || strcmp(ask->epoch, exporter->epoch_text) == 0;
	if (request->headers.last_event_id && request->headers.last_event_id[0] != '\0')
		known = read_event_id(exporter, request->headers.last_event_id, &since) == 0;
	known = known && since <= ends.newest;
	feed->cursor = known ? since : ends.oldest - (ends.oldest > 0);
	text_string(&feed->out, feed->format->hello);
	if (known)
		write_bookmark(feed);
	else
		write_reset(feed, &ends);
	feed->deadline_ms = clock_now_ms() + feed->feeds->heartbeat_ms;
}

/* Streams have no length: libmicrohttpd sends them in chunks. A client that takes nothing for two heartbeats is cut. */
static enum MHD_Result send_stream(struct request *request)
{
	const struct feed *feed = request->feed;
	struct MHD_Response *response =
		MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 32 * 1024, read_stream, request->feed, NULL);
	unsigned timeout_s = feed->feeds->heartbeat_ms / 500;
	MHD_set_connection_option(request->connection, MHD_CONNECTION_OPTION_TIMEOUT,
				  timeout_s < CUT_MIN_S ? CUT_MIN_S : timeout_s);
	reply_header(response, "X-Accel-Buffering", "no");
	return reply_queue(request, 200, feed->format->type, response);
}

enum MHD_Result stream_reply(struct request *request)
{
	static const char *const names[] = { "since", "epoch", "name", "from_ms", "to_ms", NULL };
	const char *wrong = query_check(&request->query, names, "name");
	int kind = format_choose(request->headers.accept);
	struct ask ask;
	if (kind < 0)
		return reply_error(request, 406, "The stream is served as text/event-stream and application/x-ndjson.");
	if (!wrong)
		wrong = ask_read(&request->query, &ask);
	if (wrong)
		return reply_error(request, 400, wrong);
	if (request->head)
		return reply_constant(request, 200, formats[kind].type, "", 0);
	struct feed *feed = feeds_add(&request->exporter->feeds, request, (enum format_kind)kind, &ask.filter);
	if (!feed)
		return reply_error(request, 503, "All feed places are taken: try again later.");
	begin_stream(feed, request, &ask);
	return send_stream(request);
}
