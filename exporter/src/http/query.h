/*
 * query.h -- what a client wrote: the request target, globs, Accept lists. Knows nothing of sockets.
 */
#ifndef QUERY_H
#define QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QUERY_URI_MAX = 2048, QUERY_PARAMETERS_MAX = 16 };

/* What clients may give as a seq or an offset (JSON keeps no more), and as milliseconds since 1970. */
#define QUERY_SEQ_MAX (((uint64_t)1 << 53) - 1)
#define QUERY_MS_MAX (QUERY_SEQ_MAX / 1000)

struct query_parameter {
	const char *name, *value; /* value: NUL-terminated, decoded, holds no NUL */
	size_t value_bytes;
};

struct query {
	const char *path; /* as sent, never decoded: every path that exists is plain */
	unsigned n_parameters;
	struct query_parameter parameters[QUERY_PARAMETERS_MAX];
};

/*
 * Splits the target `uri`, which is changed and must outlive the query. Returns NULL, or what is wrong with it.
 */
const char *query_parse(char *uri, struct query *ret_query);

/* The value of the first parameter of that name, NULL when there is none. */
const char *query_find(const struct query *query, const char *name);

/*
 * NULL when each parameter is in `names` (a NULL-terminated list) and none but `repeatable` (may be NULL) occurs
 * twice; else a sentence.
 */
const char *query_check(const struct query *query, const char *const *names, const char *repeatable);

/* Decimal digits only. 0, or -EINVAL, -ERANGE. */
int query_u64(const char *text, uint64_t max, uint64_t *ret_value);

/*
 * Does `text` match? `*` any run, `?` one character, `[a-z]` `[!a-z]` bytes; a backslash takes the next one as it is.
 */
bool query_glob(const char *pattern, size_t pattern_bytes, const char *text, size_t text_bytes);

/* How much an Accept list wants `type` ("text/html"): 0 to 1000. No list: 1000. */
int query_accept(const char *accept, const char *type);

/* Does an Accept-Encoding list want gzip? No list: no. */
bool query_accept_gzip(const char *accept_encoding);

/* Does an Accept list want OpenMetrics 1.0 at least as much as text/plain? */
bool query_accept_openmetrics(const char *accept);

#endif
