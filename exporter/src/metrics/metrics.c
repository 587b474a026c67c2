/*
 * metrics.c -- DESIGN: renders the metrics.
 *
 * HTTP thread. A scrape takes one snapshot (stats, labels, sinks), then walks the table of families at the end
 * of this file; each family has a function that writes its samples. The two dialects differ in four places: the name
 * on the TYPE line of a counter, the type of an info, UNIT, and the final EOF. The worker is asked only for copies and
 * never waits for a scrape. If you change the table, also change docs/metrics.md; a test compares them.
 */
#include "metrics.h"

#include "clock.h"
#include "family.h"
#include "variables.h"
#include "http/reply.h"
#include "sinks.h"

#include <errno.h>
#include <stdlib.h>

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

enum { OPEN_SCRAPE_MS = 100 };

/* --- samples ---------------------------------------------------------------------------------------------------- */

/* Where the table says that the number lies. */
static const void *field(const struct scrape *scrape, const struct family *family)
{
	const void *base = family->from == FROM_EXPORTER ? (const void *)scrape->exporter : (const void *)scrape;
	return (const char *)base + family->offset;
}

static void write_u64(struct scrape *scrape, const struct family *family)
{
	uint64_t value;
	memcpy(&value, field(scrape, family), sizeof value);
	family_u64(scrape, family, NULL, NULL, value);
}

static void write_u32(struct scrape *scrape, const struct family *family)
{
	uint32_t value;
	memcpy(&value, field(scrape, family), sizeof value);
	family_u64(scrape, family, NULL, NULL, value);
}

static void write_flag(struct scrape *scrape, const struct family *family)
{
	int value;
	memcpy(&value, field(scrape, family), sizeof value);
	family_u64(scrape, family, NULL, NULL, value != 0);
}

static void write_ns(struct scrape *scrape, const struct family *family)
{
	uint64_t ns;
	memcpy(&ns, field(scrape, family), sizeof ns);
	family_seconds(scrape, family, NULL, ns);
}

static void write_ms(struct scrape *scrape, const struct family *family)
{
	uint32_t ms;
	memcpy(&ms, field(scrape, family), sizeof ms);
	family_seconds(scrape, family, NULL, (uint64_t)ms * 1000000);
}

/* --- histograms ------------------------------------------------------------------------------------------------- */

static void write_histogram(struct scrape *scrape, const struct family *family)
{
	const struct memwatch_histogram *histogram = field(scrape, family);
	struct text *text = scrape->text;
	uint64_t n = 0;
	for (unsigned i = 0; i <= MEMWATCH_LATENCY_BUCKETS; i++) {
		n += histogram->buckets[i];
		text_string(text, family->name);
		text_string(text, "_bucket{le=\"");
		if (i < MEMWATCH_LATENCY_BUCKETS)
			text_double(text, memwatch_histogram_bound(i));
		else
			text_string(text, "+Inf");
		text_string(text, "\"} ");
		text_u64(text, n);
		text_char(text, '\n');
	}
	text_string(text, family->name);
	text_string(text, "_sum ");
	text_seconds(text, histogram->sum_ns);
	text_char(text, '\n');
	text_string(text, family->name);
	text_string(text, "_count ");
	text_u64(text, n); /* not `count`, which may be one ahead: the two must be equal */
	text_char(text, '\n');
}

/* --- the watcher ------------------------------------------------------------------------------------------------ */

static void write_build(struct scrape *scrape, const struct family *family)
{
	struct text *text = scrape->text;
	const char *parts[] = { "{version=\"",         memwatch_version(), "\",compiler=\"", COMPILER,
				"\",libmicrohttpd=\"", MHD_get_version(),  "\"} 1\n" };
	text_string(text, family->name);
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		if (i % 2 == 0)
			text_string(text, parts[i]);
		else
			text_label(text, parts[i], strlen(parts[i]));
	}
}

static void write_process(struct scrape *scrape, const struct family *family)
{
	struct text *text = scrape->text;
	text_string(text, family->name);
	text_string(text, "{pid=\"");
	text_u64(text, (uint64_t)scrape->exporter->pid);
	text_string(text, "\",");
	identity_write_labels(&scrape->exporter->identity, text);
	text_string(text, "} 1\n");
}

static void write_up(struct scrape *scrape, const struct family *family)
{
	family_u64(scrape, family, NULL, NULL,
		   atomic_load_explicit(&scrape->exporter->pump.watcher_up, memory_order_relaxed));
}

static void write_backend(struct scrape *scrape, const struct family *family)
{
	family_u64(scrape, family, "backend", scrape->stats.backend, 1);
}

static void write_backend_usable(struct scrape *scrape, const struct family *family)
{
	const struct memwatch_exporter *exporter = scrape->exporter;
	for (int i = 0; i < exporter->n_backends; i++) /* of what was not tried nothing is said */
		if (exporter->backends[i].probed)
			family_u64(scrape, family, "backend", exporter->backends[i].name,
				   exporter->backends[i].usable != 0);
}

static void write_dropped(struct scrape *scrape, const struct family *family)
{
	for (unsigned i = 0; i < MEMWATCH_DROPS; i++) {
		uint64_t n = i == MEMWATCH_DROP_RING_FULL ? scrape->stats.ring.dropped : scrape->stats.dropped_by[i];
		family_u64(scrape, family, "reason", memwatch_drop_text(i), n);
	}
}

static void write_outcomes(struct scrape *scrape, const struct family *family)
{
	static const enum memwatch_attribution outcomes[] = { MEMWATCH_ATTRIBUTION_EXACT, MEMWATCH_ATTRIBUTION_PAGE,
							      MEMWATCH_ATTRIBUTION_NONE };
	for (size_t i = 0; i < sizeof outcomes / sizeof outcomes[0]; i++)
		family_u64(scrape, family, "outcome", memwatch_attribution_text(outcomes[i]),
			   scrape->stats.attribution_by[outcomes[i]]);
}

static void write_reasons(struct scrape *scrape, const struct family *family)
{
	for (unsigned i = MEMWATCH_REASON_NONE + 1; i < MEMWATCH_REASONS; i++)
		family_u64(scrape, family, "reason", memwatch_reason_text(i), scrape->stats.reason_by[i]);
}

static void write_budget(struct scrape *scrape, const struct family *family)
{
	family_sample(scrape, family, NULL, NULL);
	text_double(scrape->text, scrape->stats.attribution_budget);
	text_char(scrape->text, '\n');
}

/* --- the exporter itself -------------------------------------------------------------------------- */

static void write_feed_clients(struct scrape *scrape, const struct family *family)
{
	for (unsigned i = 0; i < FORMATS; i++)
		family_u64(scrape, family, "transport", formats[i].name, scrape->exporter->feeds.n_clients[i]);
}

static const char *handler_text(enum handler handler)
{
	static const char *const names[HANDLERS] = { "page",   "metrics", "health", "status", "regions",
						     "events", "stream",  "values", "other" };

	return names[handler];
}

static void write_requests(struct scrape *scrape, const struct family *family)
{
	struct text *text = scrape->text;
	for (enum handler handler = 0; handler < HANDLERS; handler++) {
		unsigned known = handler == HANDLER_OTHER ? 404 : 200;
		for (unsigned i = 0; reply_status_at(i) != 0; i++) {
			uint64_t n = scrape->exporter->requests.n[handler][i];
			if (n == 0 && reply_status_at(i) != known)
				continue;
			text_string(text, family->name);
			text_string(text, "{handler=\"");
			text_string(text, handler_text(handler));
			text_string(text, "\",code=\"");
			text_u64(text, reply_status_at(i));
			text_string(text, "\"} ");
			text_u64(text, n);
			text_char(text, '\n');
		}
	}
}

/* --- the table -------------------------------------------------------------------------------------------------- */

#define STAT(member) FROM_SCRAPE, offsetof(struct scrape, stats.member)
#define SCRAPE(member) FROM_SCRAPE, offsetof(struct scrape, member)
#define EXPORTER(member) FROM_EXPORTER, offsetof(struct memwatch_exporter, member)
#define SUMMARY(member) FROM_SUMMARY, offsetof(struct memwatch_summary, member)
#define COMPUTED FROM_NOWHERE, 0

static const struct family families[] = {
#include "families.inc"
};

/* The family's name: without what OpenMetrics keeps for the samples. */
static size_t family_name_bytes(const struct scrape *scrape, const struct family *family)
{
	size_t n = strlen(family->name);
	if (!scrape->openmetrics)
		return n;
	if (family->type == COUNTER)
		return n - strlen("_total");
	return family->type == INFO ? n - strlen("_info") : n;
}

static void line(struct scrape *scrape, const char *keyword, const struct family *family, const char *rest)
{
	struct text *text = scrape->text;
	text_string(text, keyword);
	text_bytes(text, family->name, family_name_bytes(scrape, family));
	text_char(text, ' ');
	text_string(text, rest);
	text_char(text, '\n');
}

static void write_unit(struct scrape *scrape, const struct family *family)
{
	static const char *const units[] = { "seconds", "bytes", "ratio" };
	size_t n = family_name_bytes(scrape, family);

	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
		size_t unit_bytes = strlen(units[i]);
		if (n > unit_bytes && memcmp(family->name + n - unit_bytes, units[i], unit_bytes) == 0 &&
		    family->name[n - unit_bytes - 1] == '_')
			line(scrape, "# UNIT ", family, units[i]);
	}
}

static void write_family(struct scrape *scrape, const struct family *family)
{
	static const char *const types[] = { "gauge", "counter", "histogram", "info" };

	line(scrape, "# TYPE ", family, family->type == INFO && !scrape->openmetrics ? "gauge" : types[family->type]);
	if (scrape->openmetrics)
		write_unit(scrape, family);
	line(scrape, "# HELP ", family, family->help);
	family->write(scrape, family);
}

/* --- a scrape --------------------------------------------------------------------------------------------------- */

static void add_histogram(struct memwatch_histogram *sum, const struct memwatch_histogram *histogram)
{
	for (unsigned i = 0; i <= MEMWATCH_LATENCY_BUCKETS; i++)
		sum->buckets[i] += histogram->buckets[i];
	sum->count += histogram->count;
	sum->sum_ns += histogram->sum_ns;
}

static void add_recorder(struct scrape *scrape, const struct memwatch_sink_status *status)
{
	struct memwatch_sink_status *sum = &scrape->recorder;
	scrape->n_recorders++;
	scrape->n_recorders_failing += status->failing != 0;
	sum->events_written += status->events_written;
	sum->events_missed += status->events_missed;
	sum->errors += status->errors;
	sum->bytes_used += status->bytes_used;
	sum->max_bytes += status->max_bytes;
	if (status->last_commit_ns > sum->last_commit_ns)
		sum->last_commit_ns = status->last_commit_ns;
}

static int collect_sinks(struct scrape *scrape)
{
	struct memwatch_sink_info *sinks = NULL;
	int n = sinks_list(scrape->exporter->watcher, &sinks);
	if (n < 0)
		return n;
	scrape->n_sinks = (uint64_t)n;
	for (int i = 0; i < n; i++) {
		if (sinks[i].has_status)
			add_recorder(scrape, &sinks[i].status);
		if (strcmp(sinks[i].name, "callback") != 0)
			continue;
		scrape->callback.missed += sinks[i].missed;
		scrape->callback.failed += sinks[i].failed;
		scrape->callback.lag += sinks[i].lag;
		add_histogram(&scrape->callback.duration, &sinks[i].duration);
	}
	free(sinks);
	floor_sinks(&scrape->exporter->floor, &scrape->callback, &scrape->recorder);
	return 0;
}

/* The stats last: then the total is never less than the sum of the variables. */
static int collect(struct scrape *scrape)
{
	struct memwatch_exporter *exporter = scrape->exporter;
	int error = labels_collect(&exporter->labels, exporter->watcher);
	if (!error)
		error = collect_sinks(scrape);
	if (!error)
		error = memwatch_stats_get(exporter->watcher, &scrape->stats);
	if (error)
		return error;
	floor_raise(&exporter->floor, &scrape->stats);
	labels_overflow(&exporter->labels, scrape->stats.ledger.delivered);
	connections_count(&exporter->connections, &scrape->n_connections, &scrape->n_slow);
	return 0;
}

int metrics_render(struct memwatch_exporter *exporter, struct text *text, bool openmetrics, bool values)
{
	struct scrape scrape = { .exporter = exporter, .text = text, .openmetrics = openmetrics, .values = values };
	uint64_t start_ns = clock_now_ns();
	int error = collect(&scrape);
	if (error)
		return error;
	for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
		write_family(&scrape, &families[i]);
	if (openmetrics)
		text_string(text, "# EOF\n");
	exporter->scrape_ns = clock_now_ns() - start_ns;
	return text->failed ? -ENOMEM : 0;
}

static const char no_room[] = "Too many clients do not read their answers: come again, or send the token.";

static const char *type_of(bool openmetrics)
{
	return openmetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
			   : "text/plain; version=0.0.4; charset=utf-8";
}

static enum MHD_Result reply_rendered(struct request *request, bool openmetrics)
{
	struct memwatch_exporter *exporter = request->exporter;
	if (!reply_has_room(request, exporter->scrape.capacity))
		return reply_error(request, 503, no_room);
	exporter->scrape.n_bytes = 0;
	if (metrics_render(exporter, &exporter->scrape, openmetrics, true) < 0) {
		text_fini(&exporter->scrape);
		return reply_error(request, 503, "The numbers cannot be read now.");
	}
	return reply_text(request, 200, type_of(openmetrics), &exporter->scrape);
}

/* For clients without rights: however many ask, a scrape is rendered once in OPEN_SCRAPE_MS. */
static enum MHD_Result reply_shared(struct request *request, bool openmetrics)
{
	struct open_scrape *shared = &request->exporter->open_scrapes[openmetrics];
	int64_t now_ms = clock_now_ms();
	if (!reply_has_room(request, shared->text.n_bytes))
		return reply_error(request, 503, no_room);
	if (shared->text.n_bytes == 0 || now_ms - shared->made_ms >= OPEN_SCRAPE_MS) {
		shared->text.n_bytes = 0;
		shared->made_ms = now_ms;
		if (metrics_render(request->exporter, &shared->text, openmetrics, false) < 0) {
			text_fini(&shared->text);
			return reply_error(request, 503, "The numbers cannot be read now.");
		}
	}
	struct text copy = shared->text; /* which reply_text leaves empty */
	return reply_text(request, 200, type_of(openmetrics), &copy);
}

enum MHD_Result metrics_reply(struct request *request)
{
	bool openmetrics = query_accept_openmetrics(request->headers.accept);
	bool values = request->trusted || request->exporter->access.metrics == ACCESS_METRICS_OPEN;
	return values ? reply_rendered(request, openmetrics) : reply_shared(request, openmetrics);
}
