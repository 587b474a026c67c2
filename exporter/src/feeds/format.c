/*
 * format.c -- DESIGN: the formats of the feeds, one row each. Pure functions, called on the HTTP thread.
 *
 * If you add a row, also add it to docs/http.md and docs/openapi.yaml.
 */
#include "format.h"

#include "http/query.h"
#include "http/reply.h"
#include "text/json.h"

#include <errno.h>

/* `id: <epoch>-<seq>`, which a browser sends back as Last-Event-ID. */
static void sse_id(struct text *out, const char *epoch, uint64_t seq)
{
	text_string(out, "id: ");
	text_string(out, epoch);
	text_char(out, '-');
	text_u64(out, seq);
	text_char(out, '\n');
}

static void sse_begin(struct text *out, const char *kind, const char *epoch, uint64_t seq)
{
	sse_id(out, epoch, seq);
	text_string(out, "event: ");
	text_string(out, kind);
	text_string(out, "\ndata: ");
}

static void sse_bookmark(struct text *out, const char *epoch, uint64_t seq)
{
	text_string(out, ": heartbeat\n");
	sse_id(out, epoch, seq);
	text_char(out, '\n');
}

static void ndjson_begin(struct text *out, const char *kind, const char *epoch, uint64_t seq)
{
	(void)out, (void)kind, (void)epoch, (void)seq;
}

static void ndjson_bookmark(struct text *out, const char *epoch, uint64_t seq)
{
	text_char(out, '{');
	json_string(out, "kind", "bookmark");
	json_string(out, "epoch", epoch);
	json_u64(out, "seq", seq);
	text_string(out, "}\n");
}

const struct format formats[FORMATS] = {
	[FORMAT_SSE] = { "sse", "text/event-stream", REPLY_SSE, "retry: 2000\n\n", sse_begin, "\n\n", sse_bookmark },
	[FORMAT_NDJSON] = { "ndjson", "application/x-ndjson", REPLY_NDJSON, "", ndjson_begin, "\n", ndjson_bookmark },
	[FORMAT_LONG_POLL] = { .name = "long_poll" },
};

int format_choose(const char *accept)
{
	int best = 0, chosen = -ENOTSUP;
	for (int i = 0; i < FORMATS; i++) {
		int wanted = formats[i].media ? query_accept(accept, formats[i].media) : 0;
		if (wanted > best) {
			best = wanted;
			chosen = i;
		}
	}
	return chosen;
}
