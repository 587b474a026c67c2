/*
 * reply.c -- DESIGN: builds answers.
 *
 * HTTP thread. All answers pass reply_queue(), which adds the headers that every one of them must have and counts them.
 * Errors are JSON with one sentence that says what to do.
 *
 * A client that may read nothing in particular gets one answer a connection, so that requests do not pile up on one
 * that does not read; and the answers in memory for such clients are bounded together.
 */
#include "reply.h"

#include "gzip.h"
#include "text/json.h"

#include <stdio.h>

static const unsigned status_codes[STATUS_CODES] = { 200, 304, 400, 401, 403, 404, 405, 406,
						     410, 413, 414, 421, 431, 500, 503, 0 };

unsigned reply_status_at(unsigned index)
{
	return index < STATUS_CODES ? status_codes[index] : 0;
}

enum { BYTES_UNDER_WAY_MAX = 32 << 20 };

bool reply_has_room(const struct request *request, size_t n_bytes)
{
	return request->trusted || request->counts->bytes_under_way + n_bytes <= BYTES_UNDER_WAY_MAX;
}

void reply_done(struct request *request)
{
	request->counts->bytes_under_way -= request->answer_bytes;
	request->answer_bytes = 0;
}

static void count(struct request *request, unsigned status)
{
	for (unsigned i = 0; i < STATUS_CODES; i++) {
		if (status_codes[i] == status)
			request->counts->n[request->handler][i]++;
	}
}

void reply_header(struct MHD_Response *response, const char *name, const char *value)
{
	if (response)
		MHD_add_response_header(response, name, value);
}

enum MHD_Result reply_queue(struct request *request, unsigned status, const char *type, struct MHD_Response *response)
{
	if (!response)
		return MHD_NO;
	if (type)
		reply_header(response, "Content-Type", type);
	reply_header(response, "Cache-Control", "no-store");
	reply_header(response, "X-Content-Type-Options", "nosniff");
	reply_header(response, "X-Frame-Options", "DENY");
	reply_header(response, "Referrer-Policy", "no-referrer");
	reply_header(response, "Cross-Origin-Resource-Policy", "same-origin");
	if (access_must_close(&request->headers) || request->wrong || !request->trusted)
		reply_header(response, "Connection", "close");
	enum MHD_Result result = MHD_queue_response(request->connection, status, response);
	MHD_destroy_response(response);
	count(request, status);
	return result;
}

/* A copy of the bytes as an answer, whose size is the request's part of what is under way. */
static struct MHD_Response *response_of(struct request *request, const struct text *text)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(text->n_bytes, text->data, MHD_RESPMEM_MUST_COPY);
	request->answer_bytes += text->n_bytes;
	request->counts->bytes_under_way += text->n_bytes;
	return response;
}

struct MHD_Response *reply_of_text(struct request *request, struct text *text)
{
	struct text compressed;
	struct MHD_Response *response;
	if (text->failed)
		return NULL;
	if (text->n_bytes >= GZIP_BYTES_MIN && query_accept_gzip(request->headers.accept_encoding) &&
	    gzip_text(text, &compressed) == 0) {
		response = response_of(request, &compressed);
		text_fini(&compressed);
		reply_header(response, "Content-Encoding", "gzip");
	} else {
		response = response_of(request, text);
	}
	reply_header(response, "Vary", "Accept, Accept-Encoding");
	text->n_bytes = 0;
	return response;
}

enum MHD_Result reply_text(struct request *request, unsigned status, const char *type, struct text *text)
{
	struct MHD_Response *response = reply_of_text(request, text);
	if (!text->failed)
		return reply_queue(request, status, type, response);
	text_fini(text);
	return reply_error(request, 500, "The process is out of memory.");
}

enum MHD_Result reply_constant(struct request *request, unsigned status, const char *type, const char *bytes,
			       size_t n_bytes)
{
	union {
		const char *constant;
		void *plain;
	} pointer = { bytes }; /* the library takes a void *, and with MHD_RESPMEM_PERSISTENT only reads */
	return reply_queue(request, status, type,
			   MHD_create_response_from_buffer(n_bytes, pointer.plain, MHD_RESPMEM_PERSISTENT));
}

enum MHD_Result reply_error(struct request *request, unsigned status, const char *sentence)
{
	struct text text = { 0 };
	text_char(&text, '{');
	json_string(&text, "error", sentence);
	text_string(&text, "}\n");
	struct MHD_Response *response =
		text.failed ? NULL : MHD_create_response_from_buffer(text.n_bytes, text.data, MHD_RESPMEM_MUST_COPY);
	text_fini(&text);
	if (status == 405)
		reply_header(response, "Allow", "GET, HEAD");
	if (status == 401)
		reply_header(response, "WWW-Authenticate", "Bearer realm=\"memwatch\"");
	if (status == 429 || status == 503)
		reply_header(response, "Retry-After", REPLY_RETRY_S);
	return reply_queue(request, status, REPLY_JSON, response);
}

size_t reply_raw(char *out, size_t n_bytes, unsigned status, const char *sentence)
{
	int n = snprintf(out, n_bytes,
			 "HTTP/1.1 %u %s\r\nConnection: close\r\n%sContent-Type: " REPLY_JSON "\r\n"
			 "Content-Length: %zu\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n"
			 "{\"error\":\"%s\"}\n",
			 status, MHD_get_reason_phrase_for(status),
			 status == 503 ? "Retry-After: " REPLY_RETRY_S "\r\n" : "",
			 strlen(sentence) + strlen("{\"error\":\"\"}\n"), sentence);
	return n < 0 || (size_t)n >= n_bytes ? 0 : (size_t)n;
}
