/*
 * values.c -- DESIGN: serves versions of values, a region's history, and who wrote what of it.
 *
 * HTTP thread. What a region's policy hides the library does not give out: its -EACCES becomes a 403. What has
 * left the history is 410, with the library's sentence that names the oldest kept; what never was is 404. Values are
 * sent as bytes, whole, up to VALUE_MAX; they are copied out first, since the history may lose them at any time.
 */
#include "values.h"

#include "text/json.h"
#include "http/reply.h"
#include "server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	VALUE_MAX = 64 << 20,
	HISTORY_DEFAULT = 20,
	HISTORY_MAX = 200,
	BLAME_BYTES_MAX = 64 << 10,
	BLAME_RUNS_MAX = 256
};

static const char no_parameters[] = "This address takes no query parameters.";

/* An error of the library as an answer. `gone` is the status for -ENOENT. */
static enum MHD_Result reply_library_error(struct request *request, int64_t error, unsigned gone)
{
	unsigned status = 503;
	if (error == -EINVAL)
		status = 400;
	else if (error == -EACCES)
		status = 403;
	else if (error == -ENOENT)
		status = gone;
	return reply_error(request, status, memwatch_error());
}

/* --- bytes ------------------------------------------------------------------------------------------------------ */

/* Which version is asked for: by key, or of a region after a seq. */
struct version {
	const char *key; /* NULL: the others */
	uint64_t region_id, seq;
};

static int64_t read_version(memwatch *watcher, const struct version *version, void *buffer, size_t size)
{
	if (version->key)
		return memwatch_load(watcher, version->key, buffer, size);
	return memwatch_version_read(watcher, version->region_id, version->seq, buffer, size);
}

/* Is `etag` in the list of If-None-Match? */
static bool etag_listed(const char *list, const char *etag)
{
	return list && (strcmp(list, "*") == 0 || strstr(list, etag));
}

/* A key names its bytes for ever, so it is their entity tag; other versions have none. */
static enum MHD_Result send_bytes(struct request *request, const char *key, void *bytes, size_t n_bytes)
{
	char etag[MEMWATCH_KEY_SIZE + 2], disposition[MEMWATCH_KEY_SIZE + 40];
	snprintf(etag, sizeof etag, "\"%s\"", key ? key : "");
	snprintf(disposition, sizeof disposition, "attachment; filename=\"%s.bin\"", key ? key : "value");
	bool known = key && etag_listed(request->headers.if_none_match, etag);
	struct MHD_Response *response =
		MHD_create_response_from_buffer(known ? 0 : n_bytes, bytes, MHD_RESPMEM_MUST_FREE);
	if (!response)
		free(bytes);
	if (key)
		reply_header(response, "ETag", etag);
	reply_header(response, "Content-Disposition", disposition);
	return reply_queue(request, known ? 304 : 200, "application/octet-stream", response);
}

/* Is it a version that never was: of a key that no event gave out, or of a time when the region was not watched? */
static bool never_was(memwatch *watcher, const struct version *version)
{
	const struct memwatch_event *none[1];
	struct memwatch_region_info info;
	struct memwatch_cursor cursor;
	if (version->key)
		return memwatch_key_known(watcher, version->key) == 0;
	if (version->seq == UINT64_MAX || memwatch_events_read(watcher, 0, none, 0, &cursor) < 0 ||
	    memwatch_region_info_get(watcher, version->region_id, &info) < 0)
		return false;
	return version->seq > cursor.newest || (version->seq != 0 && version->seq < info.added_seq);
}

static enum MHD_Result reply_no_version(struct request *request, const struct version *version, int64_t error)
{
	char sentence[512];
	if (error != -ENOENT)
		return reply_library_error(request, error, 410);
	snprintf(sentence, sizeof sentence, "%s", memwatch_error()); /* the next call's may take its place */
	return reply_error(request, never_was(request->exporter->watcher, version) ? 404 : 410, sentence);
}

static enum MHD_Result reply_version(struct request *request, const struct version *version)
{
	memwatch *watcher = request->exporter->watcher;
	int64_t n_bytes = read_version(watcher, version, NULL, 0);
	if (n_bytes < 0)
		return reply_no_version(request, version, n_bytes);
	if (n_bytes > VALUE_MAX)
		return reply_error(request, 413,
				   "The value is larger than 64 MiB: read it in the process with memwatch_load.");
	void *bytes = malloc((size_t)n_bytes + 1);
	if (!bytes)
		return reply_error(request, 503, "There is no memory for a value of that size now.");
	int64_t n_read = read_version(watcher, version, bytes, (size_t)n_bytes);
	if (n_read == n_bytes)
		return send_bytes(request, version->key, bytes, (size_t)n_bytes);
	free(bytes);
	if (n_read < 0)
		return reply_no_version(request, version, n_read);
	return reply_error(request, 503, "The region was replaced by one of another size just now: try again.");
}

enum MHD_Result values_by_key(struct request *request)
{
	const struct version version = { .key = request->query.path + strlen(VALUES_KEY_PATH) };
	const size_t n = MEMWATCH_KEY_SIZE - 1;
	if (request->query.n_parameters != 0)
		return reply_error(request, 400, no_parameters);
	if (strlen(version.key) != n || strspn(version.key, "0123456789abcdef") != n)
		return reply_error(request, 400, "A storage key is 32 hexadecimal digits.");
	return reply_version(request, &version);
}

static enum MHD_Result reply_value(struct request *request, uint64_t id, const struct memwatch_region_info *info)
{
	static const char *const names[] = { "seq", "time_ms", NULL };
	const char *wrong = query_check(&request->query, names, NULL);
	const char *seq = query_find(&request->query, "seq"), *time_ms = query_find(&request->query, "time_ms");
	struct version version = { .region_id = id, .seq = UINT64_MAX };
	uint64_t ms = 0;
	int error;

	if (!wrong && seq && time_ms)
		wrong = "Give seq or time_ms, not both.";
	if (!wrong && seq && query_u64(seq, QUERY_SEQ_MAX, &version.seq) < 0)
		wrong = "seq must be the number of an event, or 0.";
	if (!wrong && time_ms && query_u64(time_ms, QUERY_MS_MAX, &ms) < 0)
		wrong = "time_ms must be milliseconds since 1970.";
	if (wrong)
		return reply_error(request, 400, wrong);
	if (time_ms) {
		error = memwatch_version_at(request->exporter->watcher, id, ms * 1000000 + 999999, &version.seq);
		if (error)
			return reply_library_error(request, error, ms * 1000000 + 999999 < info->added_ns ? 404 : 410);
	}
	return reply_version(request, &version);
}

/* --- history ---------------------------------------------------------------------------------------------------- */

static void begin(struct text *text, const struct request *request, uint64_t id, const char *list)
{
	text_char(text, '{');
	json_u64(text, "schema", JSON_SCHEMA);
	json_string(text, "epoch", request->exporter->epoch_text);
	json_u64_string(text, "region_id", id);
	json_key(text, list);
	text_char(text, '[');
}

/* Writes the events and gives the references back; returns the seq of the last. */
static uint64_t write_events(struct text *text, const struct memwatch_event **events, int n)
{
	uint64_t last = 0;
	for (int i = 0; i < n; i++) {
		if (i > 0)
			text_char(text, ',');
		json_event(text, events[i]);
		last = events[i]->seq;
		memwatch_event_unref(events[i]);
	}
	return last;
}

static enum MHD_Result reply_history(struct request *request, uint64_t id)
{
	static const char *const names[] = { "before", "limit", NULL };
	const char *wrong = query_check(&request->query, names, NULL);
	const char *before_text = query_find(&request->query, "before"),
		   *limit_text = query_find(&request->query, "limit");
	const struct memwatch_event *events[HISTORY_MAX];
	uint64_t before = 0, limit = HISTORY_DEFAULT, last;
	struct text text = { 0 };
	enum MHD_Result result;
	int n;

	if (!wrong && before_text && query_u64(before_text, QUERY_SEQ_MAX, &before) < 0)
		wrong = "before must be the number of an event.";
	if (!wrong && limit_text && (query_u64(limit_text, HISTORY_MAX, &limit) < 0 || limit == 0))
		wrong = "limit must be 1 to 200.";
	if (wrong)
		return reply_error(request, 400, wrong);
	n = memwatch_history_read(request->exporter->watcher, id, before, events, limit);
	if (n < 0)
		return reply_library_error(request, n, 404);
	begin(&text, request, id, "events");
	last = write_events(&text, events, n);
	text_char(&text, ']');
	json_u64_or_null(&text, "next", (uint64_t)n == limit ? last : 0);
	text_string(&text, "}\n");
	result = reply_text(request, 200, REPLY_JSON, &text);
	text_fini(&text);
	return result;
}

/* --- blame ------------------------------------------------------------------------------------------------------ */

static void write_run(struct text *text, const struct memwatch_blame *run)
{
	text_char(text, '{');
	json_u64(text, "offset", run->offset);
	json_u64(text, "size", run->size_bytes);
	json_u64_or_null(text, "seq", run->event ? run->event->seq : 0);
	if (run->event) {
		json_u64_string(text, "time_ns", run->event->time_ns);
		json_u64(text, "time_ms", run->event->time_ns / 1000000);
		json_where(text, &run->event->where);
		memwatch_event_unref(run->event);
	}
	text_char(text, '}');
}

static const char *read_span(const struct query *query, uint64_t *ret_offset, uint64_t *ret_size)
{
	static const char *const names[] = { "offset", "size", NULL };
	const char *wrong = query_check(query, names, NULL);
	const char *offset = query_find(query, "offset"), *size = query_find(query, "size");

	if (wrong)
		return wrong;
	if (offset && query_u64(offset, QUERY_SEQ_MAX, ret_offset) < 0)
		return "offset must be a number of bytes.";
	if (size && (query_u64(size, BLAME_BYTES_MAX, ret_size) < 0 || *ret_size == 0))
		return "size must be 1 to 65536 bytes.";
	return NULL;
}

static enum MHD_Result reply_blame(struct request *request, uint64_t id)
{
	memwatch *watcher = request->exporter->watcher;
	struct memwatch_blame runs[BLAME_RUNS_MAX];
	struct memwatch_region_info info;
	uint64_t offset = 0, size = 0;
	const char *wrong = read_span(&request->query, &offset, &size);
	struct text text = { 0 };
	if (wrong)
		return reply_error(request, 400, wrong);
	int n = memwatch_region_info_get(watcher, id, &info);
	if (n < 0)
		return reply_library_error(request, n, 404);
	if (offset >= info.size_bytes || size > info.size_bytes - offset)
		return reply_error(request, 400, "The region is smaller than that.");
	if (size == 0)
		size = info.size_bytes - offset < BLAME_BYTES_MAX ? info.size_bytes - offset : BLAME_BYTES_MAX;
	n = memwatch_blame(watcher, id, offset, size, runs, BLAME_RUNS_MAX);
	if (n < 0)
		return reply_library_error(request, n, 404);
	begin(&text, request, id, "runs");
	for (int i = 0; i < n; i++) {
		if (i > 0)
			text_char(&text, ',');
		write_run(&text, &runs[i]);
	}
	text_string(&text, "]}\n");
	enum MHD_Result result = reply_text(request, 200, REPLY_JSON, &text);
	text_fini(&text);
	return result;
}

/* --- one region ------------------------------------------------------------------------------------------------- */

enum MHD_Result values_of_region(struct request *request)
{
	const char *path = request->query.path + strlen(VALUES_REGION_PATH), *slash = strchr(path, '/');
	struct memwatch_region_info info;
	char digits[24];
	uint64_t id;
	if (!slash || (size_t)(slash - path) >= sizeof digits)
		return reply_error(request, 404,
				   "The addresses of a region are /api/v1/regions/ID/history, value and blame.");
	memcpy(digits, path, (size_t)(slash - path));
	digits[slash - path] = '\0';
	if (query_u64(digits, UINT64_MAX, &id) < 0 ||
	    memwatch_region_info_get(request->exporter->watcher, id, &info) < 0)
		return reply_error(request, 404, "There is no region of that id; /api/v1/regions lists them.");
	if (strcmp(slash, "/history") == 0)
		return reply_history(request, id);
	if (strcmp(slash, "/value") == 0)
		return reply_value(request, id, &info);
	if (strcmp(slash, "/blame") == 0)
		return reply_blame(request, id);
	return reply_error(request, 404, "The addresses of a region are /api/v1/regions/ID/history, value and blame.");
}
