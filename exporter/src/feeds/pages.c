/*
 * pages.c -- DESIGN: a page of events as an answer: one JSON document, or lines with the numbers in headers. HTTP
 * thread.
 */
#include "pages.h"

#include "http/reply.h"
#include "server.h"
#include "text/json.h"

void page_numbers(struct text *text, const struct memwatch_exporter *exporter, const struct memwatch_cursor *ends)
{
	json_u64(text, "schema", JSON_SCHEMA);
	json_string(text, "epoch", exporter->epoch_text);
	json_u64(text, "oldest", ends->oldest);
	json_u64(text, "newest", ends->newest);
}

static enum MHD_Result reply_json(struct request *request, const struct page *page, const struct memwatch_cursor *ends)
{
	struct text text = { 0 };
	text_char(&text, '{');
	page_numbers(&text, request->exporter, ends);
	json_u64(&text, "next", page->next);
	if (page->backwards)
		json_u64_or_null(&text, "before", page->before);
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

static enum MHD_Result reply_ndjson(struct request *request, struct page *page, const struct memwatch_cursor *ends)
{
	if (page->n_events > 0)
		text_char(&page->lines, '\n');
	struct MHD_Response *response = reply_of_text(request, &page->lines);
	reply_header(response, "Memwatch-Epoch", request->exporter->epoch_text);
	number_header(response, "Memwatch-Oldest", ends->oldest);
	number_header(response, "Memwatch-Newest", ends->newest);
	number_header(response, "Memwatch-Next", page->next);
	if (page->backwards && page->before != 0)
		number_header(response, "Memwatch-Before", page->before);
	number_header(response, "Memwatch-Missed", page->missed);
	return reply_queue(request, 200, REPLY_NDJSON, response);
}

enum MHD_Result page_reply(struct request *request, struct page *page, const struct memwatch_cursor *ends, bool ndjson,
			   int error)
{
	enum MHD_Result result;
	if (error)
		result = reply_error(request, 503, "The events cannot be read now.");
	else if (ndjson)
		result = reply_ndjson(request, page, ends);
	else
		result = reply_json(request, page, ends);
	text_fini(&page->lines);
	return result;
}
