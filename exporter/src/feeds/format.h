/*
 * format.h -- how a stream looks on the wire. Pure.
 */
#ifndef FORMAT_H
#define FORMAT_H

#include "text/text.h"

enum format_kind { FORMAT_SSE, FORMAT_NDJSON, FORMAT_LONG_POLL, FORMATS };

/* A frame is what `begin` writes, one JSON object, and `end`. */
struct format {
	const char *name;  /* in the metrics and the status */
	const char *media; /* what Accept asks for; NULL: cannot be asked for as a stream */
	const char *type;  /* Content-Type */
	const char *hello; /* what a stream begins with */
	void (*begin)(struct text *out, const char *kind, const char *epoch, uint64_t seq);
	const char *end;
	/* A sign of life that moves the client's cursor to `seq`. */
	void (*bookmark)(struct text *out, const char *epoch, uint64_t seq);
};

extern const struct format formats[FORMATS];

/* The format that an Accept list wants most, the first of the table where it does not care; -ENOTSUP: none of them. */
int format_choose(const char *accept);

#endif
