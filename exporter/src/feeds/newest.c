/*
 * newest.c -- DESIGN: the newest events of the log that match, newest first. HTTP thread.
 *
 * The log is read backwards, a batch at a time, and only what matches is written: who asks for the newest event of one
 * variable pays for looking at the others, not for their text. As every page it has a limit, of events looked at and
 * of time, and says where the next one goes on.
 */
#include "newest.h"

#include "clock.h"
#include "pages.h"
#include "server.h"
#include "text/json.h"

#include <string.h>

enum { NEWEST_BATCH = 64 };

/* Looks at events[n - 1] down to events[0]. Returns whether there is room for more. */
static bool take_batch(struct page *page, struct ask *ask, const struct memwatch_event *const *events, int n)
{
	while (n-- > 0 && page->n_events < ask->limit && page->lines.n_bytes < PAGE_BYTES_MAX) {
		const struct memwatch_event *event = events[n];
		if (event->seq >= page->before)
			continue;
		page->before = event->seq;
		if (!ask_matches(&ask->filter, event->region_id, event->time_ns / 1000000, event->name,
				 strlen(event->name)))
			continue;
		if (page->n_events++ > 0)
			text_char(&page->lines, page->separator);
		json_event(&page->lines, event);
	}
	return n < 0 && page->n_events < ask->limit && page->lines.n_bytes < PAGE_BYTES_MAX;
}

/* Goes down from page->before to `floor`, exclusive; page->before is 0 when it got there. 0 or -errno. */
static int fill_page(memwatch *watcher, struct ask *ask, struct page *page, uint64_t floor)
{
	const int64_t end_ms = clock_now_ms() + ASK_LOOK_MS;
	const struct memwatch_event *events[NEWEST_BATCH];
	struct memwatch_cursor cursor;
	bool more = true;
	for (unsigned looked_at = 0; more && page->before > floor + 1 && looked_at < PAGE_LOOKED_AT_MAX;
	     looked_at += NEWEST_BATCH) {
		uint64_t above = page->before - 1 > floor + NEWEST_BATCH ? page->before - 1 - NEWEST_BATCH : floor;
		int n = memwatch_events_read(watcher, above, events, NEWEST_BATCH, &cursor);
		if (n < 0)
			return n;
		if (cursor.oldest > floor + 1)
			floor = cursor.oldest - 1;
		more = take_batch(page, ask, events, n) && clock_now_ms() < end_ms;
		for (int i = 0; i < n; i++)
			memwatch_event_unref(events[i]);
	}
	if (page->before <= floor + 1)
		page->before = 0;
	return 0;
}

enum MHD_Result newest_reply(struct request *request, struct ask *ask, bool ndjson)
{
	struct memwatch_exporter *exporter = request->exporter;
	struct memwatch_cursor ends = feeds_ends(exporter->watcher);
	struct page page = { .next = ends.newest, .separator = ndjson ? '\n' : ',', .backwards = true };
	page.before = ask->before != 0 && ask->before <= ends.newest ? ask->before : ends.newest + 1;
	uint64_t floor = ask->latest ? ends.newest : ask->since;
	if (ask->has_since && floor + 1 < ends.oldest)
		page.missed = ends.oldest - floor - 1;
	int error = fill_page(exporter->watcher, ask, &page, floor);
	exporter->feeds.n_sent += page.n_events;
	return page_reply(request, &page, &ends, ndjson, error);
}
