/*
 * exporter_request.c -- fuzzes everything of the exporter that reads what a client wrote.
 *
 * DESIGN. The input is lines: the request target, then header values. Beside the sanitizers, a few things that must
 * always hold are checked with abort().
 */
#include "http/access.h"
#include "feeds/ask.h"
#include "http/query.h"

#include <stdlib.h>

enum { LINES_MAX = 8 };

/* Cuts the input into NUL-terminated lines of their own memory, so that reading past one is seen. */
static int cut(const uint8_t *data, size_t n_bytes, char *lines[LINES_MAX])
{
	int n = 0;

	while (n < LINES_MAX) {
		const uint8_t *end = n_bytes > 0 ? memchr(data, '\n', n_bytes) : NULL;
		size_t line_bytes = end != NULL ? (size_t)(end - data) : n_bytes;

		lines[n] = malloc(line_bytes + 1);
		if (lines[n] == NULL)
			abort();
		if (line_bytes > 0)
			memcpy(lines[n], data, line_bytes);
		lines[n++][line_bytes] = '\0';
		if (end == NULL)
			break;
		data = end + 1;
		n_bytes -= line_bytes + 1;
	}
	return n;
}

static void check_target(char *target, const char *text)
{
	static const char *const names[] = { "since", "epoch", "name", "from_ms", "to_ms", "limit", "wait", NULL };
	struct query query;
	struct ask ask;

	if (query_parse(target, &query) != NULL)
		return;
	if (query.path[0] != '/' || query.n_parameters > QUERY_PARAMETERS_MAX)
		abort();
	for (unsigned i = 0; i < query.n_parameters; i++) {
		if (strlen(query.parameters[i].value) != query.parameters[i].value_bytes)
			abort();
		query_glob(query.parameters[i].value, query.parameters[i].value_bytes, text, strlen(text));
	}
	query_check(&query, names, "name");
	if (ask_read(&query, &ask) == NULL &&
	    (ask.limit == 0 || ask.limit > 1000 || ask.wait_ms > 30000 || ask.wait_ms < 0))
		abort();
}

static void check_accept(const char *accept)
{
	static const char *const types[] = { "application/json", "text/html", "text/event-stream" };

	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
		int quality = query_accept(accept, types[i]);

		if (quality < 0 || quality > 1000)
			abort();
	}
	query_accept_openmetrics(accept);
}

/* Whoever gets in must have written the token, and named a host of ours. */
static void check_access(char *const lines[LINES_MAX], int n)
{
	const struct access access = {
		.port = 10764, .token = "fuzzed-token-0123456789", .bound = "127.0.0.1", .allowed = "box.example"
	};
	const struct access_headers headers = { .host = lines[1],
						.origin = n > 2 ? lines[2] : NULL,
						.authorization = n > 3 ? lines[3] : NULL,
						.n_authorizations = n > 3,
						.n_origins = n > 2,
						.fetch_site = n > 5 ? lines[5] : NULL,
						.n_hosts = 1 };
	const char *sentence;
	int found = 0;

	for (int i = 0; i < n; i++)
		found |= strstr(lines[i], access.token) != NULL;
	if (access_has_token(&access, &headers) && !found)
		abort();
	if (access_check_host(&access, &headers, &sentence) == 0 &&
	    access_check_origin(&access, &headers, 0, &sentence) == 0 && strstr(lines[1], "evil") != NULL)
		abort();
	access_token_valid(lines[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	char *lines[LINES_MAX];
	int n = cut(data, n_bytes, lines);

	check_accept(lines[n - 1]);
	query_glob(lines[0], strlen(lines[0]), lines[n - 1], strlen(lines[n - 1]));
	if (n > 1)
		check_access(lines, n);
	check_target(lines[0], n > 1 ? lines[1] : "");
	for (int i = 0; i < n; i++)
		free(lines[i]);
	return 0;
}
