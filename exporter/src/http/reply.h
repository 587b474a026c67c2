/*
 * reply.h -- every answer that leaves the exporter. Each function queues one and returns what libmicrohttpd wants.
 */
#ifndef REPLY_H
#define REPLY_H

#include "request.h"
#include "text/text.h"

#define REPLY_JSON "application/json; charset=utf-8"
#define REPLY_NDJSON "application/x-ndjson; charset=utf-8"
#define REPLY_SSE "text/event-stream; charset=utf-8"
#define REPLY_RETRY_S "5" /* when to try again, in seconds */
#define REPLY_TEXT "text/plain; charset=utf-8"

/*
 * May an answer of that size be built? Not while clients without rights do not read what they asked for: answers in
 * memory for such clients are bounded.
 */
bool reply_has_room(const struct request *request, size_t n_bytes);

/* The request is over: its answer is no longer in memory. */
void reply_done(struct request *request);

/* Sends the text, copied, and leaves it empty. One whose memory ran out becomes a 500. */
enum MHD_Result reply_text(struct request *request, unsigned status, const char *type, struct text *text);

/* The text as an answer for reply_queue, compressed where the client asks for that; NULL: its memory ran out. */
struct MHD_Response *reply_of_text(struct request *request, struct text *text);

/* `{"error": sentence}`. Closes the connection of a request with a body. */
enum MHD_Result reply_error(struct request *request, unsigned status, const char *sentence);

/* Sends constant bytes. */
enum MHD_Result reply_constant(struct request *request, unsigned status, const char *type, const char *bytes,
			       size_t n_bytes);

/* For answers that set headers of their own. `response` is taken over; NULL: memory ran out. */
void reply_header(struct MHD_Response *response, const char *name, const char *value);
enum MHD_Result reply_queue(struct request *request, unsigned status, const char *type, struct MHD_Response *response);

/*
 * The answer as bytes, for a connection on which libmicrohttpd has nothing to answer: `{"error": sentence}`, and the
 * end. Returns how many bytes were written.
 */
size_t reply_raw(char *out, size_t n_bytes, unsigned status, const char *sentence);

/* The status code behind the index of struct request_counts, 0 past the last. */
unsigned reply_status_at(unsigned index);

#endif
