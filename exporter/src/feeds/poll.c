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
#include "newest.h"
#include "pages.h"
#include "server.h"
#include "stream.h"
#include "text/json.h"

#include <errno.h>

/*
 * Gathers up to `limit` events after page->next. 0 or -errno. What a page has missed begins behind its `since`: so it
 * ends before a gap that lies behind other events, as between what the cache still has and what the log has. Who asks
 * for all that is kept has missed nothing, as far as the metrics are concerned.
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
		page->cut_short = missed > 0 && page->next != page->since;
		if (page->cut_short)
			break;
		page->missed += missed;
		page->next = line->seq;
		if (!ask_matches_line(&ask->filter, line)) {
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
	struct page page = { .since = ask->latest ? since : ask->since,
			     .next = since,
			     .separator = ndjson ? '\n' : ',' };
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
	if (!error && waiting == -EBUSY) {
		text_fini(&page.lines);
		return reply_error(request, 503, "All feed places are taken: try again later, or poll without wait.");
	}
	return page_reply(request, &page, &ends, ndjson, error);
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
	static const char *const names[] = { "since", "epoch", "name",  "from_ms", "to_ms",
					     "limit", "wait",  "order", "before",  NULL };
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
	if (ask.newest_first)
		return newest_reply(request, &ask, ndjson);
	return reply_page(request, &ask, ask.latest ? ends.newest : ask.since, ndjson);
}
