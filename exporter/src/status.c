/*
 * status.c -- DESIGN: /api/v1/status, /api/v1/regions and the health addresses. HTTP thread.
 *
 * The status is the one document that is built with cJSON: it is small, asked for seldom, and nested. Lists of events
 * and regions are long and asked for often; json.c writes them without a tree. cJSON keeps numbers as doubles and
 * passes bad UTF-8 on, so whole numbers go in as raw digits and strings through text_clean().
 */
#include "status.h"

#include "text/json.h"
#include "http/reply.h"
#include "server.h"
#include "sinks.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { REGIONS_DEFAULT = 100, REGIONS_MAX = 1000, REGIONS_BATCH = 50, REGIONS_BYTES_MAX = 4 << 20 };

/* --- status ----------------------------------------------------------------------------------------------------- */

static void add_u64(cJSON *object, const char *name, uint64_t value)
{
	struct text text = { 0 };
	text_u64(&text, value);
	text_char(&text, '\0');
	if (!text.failed)
		cJSON_AddRawToObject(object, name, text.data);
	text_fini(&text);
}

static void add_string(cJSON *object, const char *name, const char *value)
{
	struct text text = { 0 };
	text_clean(&text, value);
	text_char(&text, '\0');
	if (!text.failed)
		cJSON_AddStringToObject(object, name, text.data);
	text_fini(&text);
}

static void add_seconds(cJSON *object, const char *name, uint64_t ns)
{
	struct text text = { 0 };
	text_seconds(&text, ns);
	text_char(&text, '\0');
	if (!text.failed)
		cJSON_AddRawToObject(object, name, text.data);
	text_fini(&text);
}

static void add_now(cJSON *root)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	add_u64(root, "now_ms", (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

static void add_identity(const struct identity *identity, cJSON *root)
{
	add_string(root, "service", identity->service);
	if (identity->worker[0])
		add_string(root, "worker", identity->worker);
	else
		cJSON_AddNullToObject(root, "worker");
	cJSON *labels = cJSON_AddObjectToObject(root, "labels");
	for (unsigned i = 0; i < identity->n_labels; i++)
		add_string(labels, identity->labels[i].name, identity->labels[i].value);
}

static void add_backends(const struct memwatch_exporter *exporter, cJSON *root)
{
	cJSON *list = cJSON_AddArrayToObject(root, "backends");
	for (int i = 0; list && i < exporter->n_backends; i++) {
		cJSON *item = cJSON_CreateObject();
		cJSON_AddItemToArray(list, item);
		add_string(item, "name", exporter->backends[i].name);
		cJSON_AddBoolToObject(item, "usable", exporter->backends[i].usable);
		cJSON_AddBoolToObject(item, "chosen", exporter->backends[i].chosen);
		add_string(item, "note", exporter->backends[i].note);
	}
}

static void add_ledger(const struct memwatch_stats *stats, cJSON *root)
{
	cJSON *ledger = cJSON_AddObjectToObject(root, "ledger"), *dropped;
	add_u64(ledger, "detected", stats->ledger.detected);
	add_u64(ledger, "delivered", stats->ledger.delivered);
	add_u64(ledger, "coalesced", stats->ledger.coalesced);
	add_u64(ledger, "unchanged", stats->ledger.unchanged);
	add_u64(ledger, "filtered", stats->ledger.filtered);
	add_u64(ledger, "dropped", stats->ledger.dropped);
	dropped = cJSON_AddObjectToObject(root, "dropped");
	for (unsigned i = 0; i < MEMWATCH_DROPS; i++)
		add_u64(dropped, memwatch_drop_text(i),
			i == MEMWATCH_DROP_RING_FULL ? stats->ring.dropped : stats->dropped_by[i]);
}

static void add_attribution(const struct memwatch_stats *stats, cJSON *root)
{
	cJSON *object = cJSON_AddObjectToObject(root, "attribution");
	cJSON_AddBoolToObject(object, "available", stats->attribution_available);
	cJSON_AddBoolToObject(object, "filtered", stats->attribution_filtered);
	cJSON_AddNumberToObject(object, "budget_ratio", stats->attribution_budget);
	add_string(object, "note", stats->attribution_note);
	add_u64(object, "exact", stats->attribution_by[MEMWATCH_ATTRIBUTION_EXACT]);
	add_u64(object, "page", stats->attribution_by[MEMWATCH_ATTRIBUTION_PAGE]);
	add_u64(object, "none", stats->attribution_by[MEMWATCH_ATTRIBUTION_NONE]);
	add_seconds(object, "throttled_seconds", stats->throttled_ns);
}

static void add_log(const struct memwatch_stats *stats, cJSON *root)
{
	cJSON *ring = cJSON_AddObjectToObject(root, "ring"), *history = cJSON_AddObjectToObject(root, "history"), *log;
	add_u64(ring, "notes", stats->ring.depth);
	add_u64(ring, "capacity", stats->ring.capacity);
	add_u64(ring, "high_watermark", stats->ring.high_water);
	add_u64(history, "bytes", stats->history.bytes);
	add_u64(history, "budget_bytes", stats->history.budget);
	add_u64(history, "versions", stats->history.versions);
	add_u64(history, "evicted", stats->history.evicted);
	log = cJSON_AddObjectToObject(root, "log");
	add_u64(log, "events", stats->events_kept);
	add_u64(log, "bytes", stats->events_bytes);
	add_u64(log, "evicted", stats->events_evicted);
}

static void add_feeds(const struct memwatch_exporter *exporter, cJSON *root)
{
	cJSON *object = cJSON_AddObjectToObject(root, "feeds");
	for (unsigned i = 0; i < FORMATS; i++)
		add_u64(object, formats[i].name, exporter->feeds.n_clients[i]);
	add_u64(object, "limit", exporter->feeds.limit);
	add_u64(object, "missed", exporter->feeds.n_missed);
	add_u64(object, "rejected", exporter->feeds.n_rejected);
	add_u64(object, "cut", exporter->feeds.n_cut);
}

static void add_recorders(const struct memwatch_exporter *exporter, cJSON *root)
{
	struct memwatch_sink_info *sinks = NULL;
	cJSON *list = cJSON_AddArrayToObject(root, "recorders");
	int n = sinks_list(exporter->watcher, &sinks);
	for (int i = 0; i < n; i++) {
		const struct memwatch_sink_status *status = &sinks[i].status;
		cJSON *item = sinks[i].has_status ? cJSON_CreateObject() : NULL;
		if (!item)
			continue;
		cJSON_AddItemToArray(list, item);
		cJSON_AddBoolToObject(item, "failing", status->failing);
		add_u64(item, "events_written", status->events_written);
		add_u64(item, "events_missed", status->events_missed);
		add_u64(item, "errors", status->errors);
		add_u64(item, "used_bytes", status->bytes_used);
		add_u64(item, "max_bytes", status->max_bytes);
		add_string(item, "message", status->message);
	}
	free(sinks);
}

static cJSON *build_status(const struct memwatch_exporter *exporter, const struct memwatch_stats *stats)
{
	cJSON *root = cJSON_CreateObject();
	add_u64(root, "schema", JSON_SCHEMA);
	add_identity(&exporter->identity, root);
	add_u64(root, "pid", (uint64_t)exporter->pid);
	add_string(root, "version", memwatch_version());
	if (exporter->discovery.path[0])
		add_string(root, "discovery_file", exporter->discovery.path);
	else
		cJSON_AddNullToObject(root, "discovery_file");
	add_string(root, "epoch", exporter->epoch_text);
	add_u64(root, "oldest", stats->events_oldest);
	add_u64(root, "newest", stats->events_newest);
	add_u64(root, "start_time_ms", stats->start_time_ns / 1000000);
	add_now(root);
	add_string(root, "backend", stats->backend);
	add_backends(exporter, root);
	add_u64(root, "regions", stats->n_regions);
	add_u64(root, "region_bytes", stats->tracked_bytes);
	add_u64(root, "native_memory_bytes", stats->native_memory_bytes);
	add_u64(root, "window_ms", stats->window_ms);
	add_u64(root, "sweep_ms", stats->sweep_ms);
	add_u64(root, "polled_bytes", stats->polled_bytes);
	add_u64(root, "poll_round_ms", stats->poll_round_ms);
	add_u64(root, "faults", stats->faults);
	add_u64(root, "forks_unwatched", stats->forks_unwatched);
	add_ledger(stats, root);
	add_attribution(stats, root);
	add_log(stats, root);
	add_feeds(exporter, root);
	add_recorders(exporter, root);
	return root;
}

enum MHD_Result status_reply(struct request *request)
{
	struct memwatch_stats stats;
	struct text text = { 0 };
	if (request->query.n_parameters != 0)
		return reply_error(request, 400, "This address takes no query parameters.");
	if (memwatch_stats_get(request->exporter->watcher, &stats) < 0)
		return reply_error(request, 503, "The numbers cannot be read now.");
	cJSON *root = build_status(request->exporter, &stats);
	char *json = cJSON_PrintUnformatted(root);
	cJSON_Delete(root);
	text.failed = !json;
	if (json)
		text_string(&text, json);
	text_char(&text, '\n');
	cJSON_free(json);
	enum MHD_Result result = reply_text(request, 200, REPLY_JSON, &text);
	text_fini(&text);
	return result;
}

/* --- regions ---------------------------------------------------------------------------------------------------- */

/* The region's last event, a reference, from the log, or else from the history; NULL: neither keeps it any more. */
static const struct memwatch_event *last_event(memwatch *watcher, const struct memwatch_region_info *info)
{
	const struct memwatch_event *event = NULL;
	struct memwatch_cursor cursor;
	if (info->last_seq == 0)
		return NULL;
	if (memwatch_events_read(watcher, info->last_seq - 1, &event, 1, &cursor) == 1) {
		if (event->region_id == info->id)
			return event;
		memwatch_event_unref(event);
	}
	return memwatch_history_read(watcher, info->id, 0, &event, 1) == 1 ? event : NULL;
}

static void add_region(memwatch *watcher, struct text *text, const struct memwatch_region_info *info)
{
	const struct memwatch_event *last = last_event(watcher, info);
	json_region(text, info, last);
	if (last)
		memwatch_event_unref(last);
}

/*
 * Appends up to `limit` regions after *cursor, which it moves; 0 when the list has ended. Fewer where their text is
 * long. Returns how many, or -errno.
 */
static int list_regions(memwatch *watcher, struct text *text, uint64_t *cursor, uint64_t limit)
{
	struct memwatch_region_info *infos = malloc(REGIONS_BATCH * sizeof *infos);
	int n = !infos ? -ENOMEM : 1, n_listed = 0;
	while (n > 0 && (uint64_t)n_listed < limit && text->n_bytes < REGIONS_BYTES_MAX) {
		uint64_t wanted = limit - (uint64_t)n_listed;
		n = memwatch_region_list(watcher, cursor, infos, wanted < REGIONS_BATCH ? wanted : REGIONS_BATCH);
		for (int i = 0; i < n; i++) {
			if (n_listed++ > 0)
				text_char(text, ',');
			add_region(watcher, text, &infos[i]);
		}
	}
	if (n == 0)
		*cursor = 0;
	free(infos);
	return n < 0 ? n : n_listed;
}

enum MHD_Result status_regions(struct request *request)
{
	static const char *const names[] = { "limit", "continue", NULL };
	const char *wrong = query_check(&request->query, names, NULL);
	const char *limit_text = query_find(&request->query, "limit"), *start = query_find(&request->query, "continue");
	uint64_t limit = REGIONS_DEFAULT, cursor = 0;
	struct text text = { 0 };
	enum MHD_Result result;

	if (!wrong && limit_text && (query_u64(limit_text, REGIONS_MAX, &limit) < 0 || limit == 0))
		wrong = "limit must be 1 to 1000.";
	if (!wrong && start && query_u64(start, UINT64_MAX, &cursor) < 0)
		wrong = "continue must be what the previous answer gave as next.";
	if (wrong)
		return reply_error(request, 400, wrong);
	text_char(&text, '{');
	json_u64(&text, "schema", JSON_SCHEMA);
	json_string(&text, "epoch", request->exporter->epoch_text);
	json_key(&text, "regions");
	text_char(&text, '[');
	if (list_regions(request->exporter->watcher, &text, &cursor, limit) < 0) {
		text_fini(&text);
		return reply_error(request, 503, "The regions cannot be read now.");
	}
	text_char(&text, ']');
	if (cursor != 0)
		json_u64_string(&text, "next", cursor);
	else
		json_string_or_null(&text, "next", NULL);
	text_string(&text, "}\n");
	result = reply_text(request, 200, REPLY_JSON, &text);
	text_fini(&text);
	return result;
}

/* --- health ----------------------------------------------------------------------------------------------------- */

/* With the epoch, by which a tool that found our discovery file knows that it is us who answers. */
enum MHD_Result status_healthy(struct request *request)
{
	static char sentence[] = "memwatch is healthy.\n";
	struct MHD_Response *response =
		MHD_create_response_from_buffer(sizeof sentence - 1, sentence, MHD_RESPMEM_PERSISTENT);
	reply_header(response, "Memwatch-Epoch", request->exporter->epoch_text);
	return reply_queue(request, 200, REPLY_TEXT, response);
}

enum MHD_Result status_ready(struct request *request)
{
	if (!atomic_load_explicit(&request->exporter->pump.watcher_up, memory_order_relaxed))
		return reply_error(request, 503, "The watcher is closed.");
	return reply_constant(request, 200, REPLY_TEXT, "memwatch is ready.\n", 19);
}
