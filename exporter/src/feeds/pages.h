/*
 * pages.h -- a page of events on its way to a client. HTTP thread.
 */
#ifndef PAGES_H
#define PAGES_H

#include "http/request.h"
#include "text/text.h"

#include <memwatch/memwatch.h>

enum { PAGE_LOOKED_AT_MAX = 65536, PAGE_BYTES_MAX = 4 << 20 };

struct page {
	struct text lines; /* joined by `separator` */
	char separator;
	uint64_t since; /* of the request; what is missed begins behind it */
	uint64_t next, missed, n_events;
	bool cut_short;  /* there may be more, but others have their turn first */
	bool backwards;  /* newest first: `before` is told */
	uint64_t before; /* where the next page goes on downwards; 0: nowhere */
};

/* `"schema":…,"epoch":…,"oldest":…,"newest":…`, the members of every answer about events. */
void page_numbers(struct text *text, const struct memwatch_exporter *exporter, const struct memwatch_cursor *ends);

/* Sends the page and frees its text; `error`, of the reading, is a 503. */
enum MHD_Result page_reply(struct request *request, struct page *page, const struct memwatch_cursor *ends, bool ndjson,
			   int error);

#endif
