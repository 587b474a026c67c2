/*
 * poll.c -- DESIGN: /api/v1/events: a page of events, or a wait for the next. HTTP thread.
 *
 * A wait is a feed that is suspended until there is an event, or until its time is over. Then libmicrohttpd calls for
 * the same request again, which goes on from the feed's cursor. What left the log before the client came to it is
 * counted as missed.
 */
#include "poll.h"

#include "clock.h"
#include "http/reply.h"
#include "server.h"
#include "stream.h"
#include "text/json.h"

#include <errno.h>

enum { PAGE_LOOKED_AT_MAX = 65536, PAGE_BYTES_MAX = 4 << 20 };

struct page {
	struct text lines; /* joined by `separator` */
	char separator;
	uint64_t next, missed, n_events;
	bool cut_short; /* there may be more, but others have their turn first */
};

/*
 * Gathers up to `limit` events after page->next. 0 or -errno. Who asks for all that is kept has missed nothing, as far
 * as the metrics are concerned.
 */
static int fill_page(struct memwatch_exporter *exporter, struct ask *ask, struct page *page)
{
	const int64_t end_ms = clock_now_ms() + ASK_LOOK_MS;
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
		if (!ask_matches(&ask->filter, line)) {
			page->cut_short = n_looked_at % ASK_LOOK_EVERY == 0 && clock_now_ms() >= end_ms;
			if (page->cut_short)
				break;
			continue;
		}
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
	text_char(&text, '{');
	page_numbers(&text, request->exporter, ends);
	json_u64(&text, "next", page->next);
	json_u64(&text, "missed", page->missed);
	json_key(&text, "events");
	text_char(&text, '[');
	text_bytes(&text, page->lines.data, page->lines.n_bytes);
	text_string(&text, "]}\n");
	text.failed |= page->lines.failed;
	enum MHD_Result result = reply_text(request, 200, REPLY_JSON, &text);
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
	text_char(&text, '{');
	json_string(&text, "error", sentence);
	page_numbers(&text, request->exporter, ends);
	text_string(&text, "}\n");
	enum MHD_Result result = reply_text(request, 410, REPLY_JSON, &text);
	text_fini(&text);
	return result;
}

/* May this request wait for an event after page->next? 1: it sleeps; 0: look again; -errno: answer now. */
static int wait_for_page(struct request *request, const struct ask *ask, const struct page *page)
{
	struct feed *feed = request->feed;
	int64_t now_ms = clock_now_ms();
	if (page->n_events > 0 || page->missed > 0 || page->cut_short || ask->wait_ms == 0 || request->head)
		return -ENODATA;
	if (!feed) {
		feed = feeds_add(&request->exporter->feeds, request, FORMAT_LONG_POLL, &ask->filter);
		if (!feed)
			return -EBUSY;
		feed->deadline_ms = now_ms + ask->wait_ms;
	}
	if (now_ms >= feed->deadline_ms)
		return -ETIMEDOUT;
	feed->cursor = page->next;
	return feeds_suspend(feed);
}

static enum MHD_Result reply_page(struct request *request, struct ask *ask, uint64_t since, bool ndjson)
{
	struct page page = { .next = since, .separator = ndjson ? '\n' : ',' };
	enum MHD_Result result;
	int error, waiting;
	do {
		error = fill_page(request->exporter, ask, &page);
		waiting = error ? error : wait_for_page(request, ask, &page);
		if (waiting == 1)
			return MHD_YES;
	} while (waiting == 0);
	feeds_remove(request->feed, false);
	request->feed = NULL;
	struct memwatch_cursor ends = feeds_ends(request->exporter->watcher);
	if (error)
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

enum MHD_Result poll_reply(struct request *request)
{
	static const char *const names[] = { "since", "epoch", "name", "from_ms", "to_ms", "limit", "wait", NULL };
	const char *accept = request->headers.accept, *wrong = query_check(&request->query, names, "name");
	int ndjson = wants_ndjson(accept);
	struct memwatch_cursor ends;
	struct ask ask;

	if (accept && query_accept(accept, "text/event-stream") > query_accept(accept, "application/json") &&
	    ndjson <= 0)
		return stream_reply(request);
	if (ndjson < 0)
		return reply_error(
			request, 406,
			"Events are served as application/json, application/x-ndjson and text/event-stream.");
	if (!wrong)
		wrong = ask_read(&request->query, &ask);
	if (wrong)
		return reply_error(request, 400, wrong);
	if (request->feed)
		return reply_page(request, &ask, request->feed->cursor, ndjson);
	ends = feeds_ends(request->exporter->watcher);
	if (ask.epoch && strcmp(ask.epoch, request->exporter->epoch_text) != 0)
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
