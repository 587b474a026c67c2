/*
 * stats.c -- DESIGN: the native statistics as dictionaries; what they hold stands in the tables below. Runs with the
 * GIL.
 */
#include "convert.h"

#define AT(member) offsetof(struct memwatch_stats, member)

static const struct field stats_fields[] = {
	{ "backend", FIELD_TEXT, AT(backend) },
	{ "epoch", FIELD_U64, AT(epoch) },
	{ "start_time_ns", FIELD_U64, AT(start_time_ns) },
	{ "forks_unwatched", FIELD_U64, AT(forks_unwatched) },
	{ "tracked_regions", FIELD_U64, AT(n_regions) },
	{ "tracked_bytes", FIELD_U64, AT(tracked_bytes) },
	{ "native_memory_bytes", FIELD_U64, AT(native_memory_bytes) },
	{ "detected", FIELD_U64, AT(ledger.detected) },
	{ "delivered", FIELD_U64, AT(ledger.delivered) },
	{ "coalesced", FIELD_U64, AT(ledger.coalesced) },
	{ "unchanged", FIELD_U64, AT(ledger.unchanged) },
	{ "filtered", FIELD_U64, AT(ledger.filtered) },
	{ "faults", FIELD_U64, AT(faults) },
	{ "ring_capacity", FIELD_U64, AT(ring.capacity) },
	{ "ring_depth", FIELD_U64, AT(ring.depth) },
	{ "ring_high_water", FIELD_U64, AT(ring.high_water) },
	{ "ring_dropped", FIELD_U64, AT(ring.dropped) },
	{ "armed_pages", FIELD_U64, AT(armed_pages) },
	{ "passes", FIELD_U64, AT(passes) },
	{ "pages_written", FIELD_U64, AT(pages_written) },
	{ "window_ms", FIELD_U32, AT(window_ms) },
	{ "sweep_ms", FIELD_U32, AT(sweep_ms) },
	{ "polled_bytes", FIELD_U64, AT(polled_bytes) },
	{ "poll_round_ms", FIELD_U32, AT(poll_round_ms) },
	{ "poll_budget", FIELD_DOUBLE, AT(poll_budget) },
	{ "history_bytes", FIELD_U64, AT(history.bytes) },
	{ "history_budget", FIELD_U64, AT(history.budget) },
	{ "history_versions", FIELD_U64, AT(history.versions) },
	{ "history_evicted", FIELD_U64, AT(history.evicted) },
	{ NULL, FIELD_U64, 0 },
};

static const struct field event_fields[] = {
	{ "oldest", FIELD_U64, AT(events_oldest) },   { "newest", FIELD_U64, AT(events_newest) },
	{ "kept", FIELD_U64, AT(events_kept) },       { "bytes", FIELD_U64, AT(events_bytes) },
	{ "evicted", FIELD_U64, AT(events_evicted) }, { NULL, FIELD_U64, 0 },
};

static const struct field attribution_fields[] = {
	{ "available", FIELD_BOOL, AT(attribution_available) },
	{ "filtered", FIELD_BOOL, AT(attribution_filtered) },
	{ "note", FIELD_CHARS, AT(attribution_note) },
	{ "budget", FIELD_DOUBLE, AT(attribution_budget) },
	{ "signals", FIELD_U64, AT(signals) },
	{ "ours", FIELD_U64, AT(signals_ours) },
	{ "foreign", FIELD_U64, AT(signals_foreign) },
	{ "stepped", FIELD_U64, AT(stepped) },
	{ "throttled_s", FIELD_SECONDS, AT(throttled_ns) },
	{ "stack_depth", FIELD_U32, AT(stack_depth) },
	{ "locations", FIELD_U64, AT(locations) },
	{ "locations_dropped", FIELD_U64, AT(locations_dropped) },
	{ "handler_lost", FIELD_U64, AT(handler_lost) },
	{ "watchpoints", FIELD_U32, AT(watchpoints.available) },
	{ "watchpoints_used", FIELD_U32, AT(watchpoints.used) },
	{ "watchpoint_hits", FIELD_U64, AT(watchpoints.hits) },
	{ "watchpoint_missed", FIELD_U64, AT(watchpoints.missed) },
	{ NULL, FIELD_U64, 0 },
};

/* What was dropped of detections; ring notes are no part of the ledger and stand in ring_dropped. */
static PyObject *dropped_dict(const struct memwatch_stats *stats)
{
	PyObject *dict = PyDict_New();
	for (unsigned i = MEMWATCH_DROP_RING_FULL + 1; dict && i < MEMWATCH_DROPS; i++)
		if (convert_set(dict, memwatch_drop_text((enum memwatch_drop)i),
				PyLong_FromUnsignedLongLong(stats->dropped_by[i])) < 0)
			Py_CLEAR(dict);
	return dict;
}

static PyObject *reasons_dict(const struct memwatch_stats *stats)
{
	PyObject *dict = PyDict_New();
	for (unsigned i = MEMWATCH_REASON_NONE + 1; dict && i < MEMWATCH_REASONS; i++)
		if (convert_set(dict, memwatch_reason_text((enum memwatch_reason)i),
				PyLong_FromUnsignedLongLong(stats->reason_by[i])) < 0)
			Py_CLEAR(dict);
	return dict;
}

static PyObject *attribution_dict(const struct memwatch_stats *stats)
{
	PyObject *dict = PyDict_New();
	int result = dict ? convert_fields(dict, stats, attribution_fields) : -1;
	for (unsigned i = 0; result == 0 && i <= MEMWATCH_ATTRIBUTION_EXACT; i++)
		result = convert_set(dict, memwatch_attribution_text((enum memwatch_attribution)i),
				     PyLong_FromUnsignedLongLong(stats->attribution_by[i]));
	if (result < 0 || convert_set(dict, "reasons", reasons_dict(stats)) < 0)
		Py_CLEAR(dict);
	return dict;
}

static PyObject *fields_dict(const struct memwatch_stats *stats, const struct field *fields)
{
	PyObject *dict = PyDict_New();
	if (dict && convert_fields(dict, stats, fields) < 0)
		Py_CLEAR(dict);
	return dict;
}

static PyObject *sink_dict(const struct memwatch_sink_info *info)
{
	static const struct field fields[] = {
		{ "name", FIELD_CHARS, offsetof(struct memwatch_sink_info, name) },
		{ "received", FIELD_U64, offsetof(struct memwatch_sink_info, received) },
		{ "missed", FIELD_U64, offsetof(struct memwatch_sink_info, missed) },
		{ "failed", FIELD_U64, offsetof(struct memwatch_sink_info, failed) },
		{ "lag", FIELD_U64, offsetof(struct memwatch_sink_info, lag) },
		{ NULL, FIELD_U64, 0 },
	};
	PyObject *dict = PyDict_New();
	if (dict && (convert_fields(dict, info, fields) < 0 ||
		     convert_set(dict, "duration", convert_histogram(&info->duration)) < 0))
		Py_CLEAR(dict);
	return dict;
}

static PyObject *append(PyObject *list, PyObject *item)
{
	if (!item || PyList_Append(list, item) < 0)
		Py_CLEAR(list);
	Py_XDECREF(item);
	return list;
}

static PyObject *sinks_list(memwatch *native)
{
	size_t room = 0;
	struct memwatch_sink_info *infos = NULL;
	int n = 1; /* a program may open any number of them */
	while (n > 0 && (size_t)n > room) {
		room = (size_t)n + 16;
		PyMem_Free(infos);
		infos = PyMem_Calloc(room, sizeof *infos);
		if (!infos)
			return PyErr_NoMemory();
		n = memwatch_sink_list(native, infos, room);
	}
	PyObject *list = PyList_New(0);
	for (int i = 0; list && i < n; i++)
		list = append(list, sink_dict(&infos[i]));
	PyMem_Free(infos);
	return list;
}

PyObject *stats_dict(PyObject *self, PyObject *Py_UNUSED(unused))
{
	struct memwatch_stats stats;
	memwatch *native = watcher_native((struct watcher *)self);
	if (!native)
		return NULL;
	int error = memwatch_stats_get(native, &stats);
	if (error < 0)
		return convert_error(error, memwatch_error());
	PyObject *dict = fields_dict(&stats, stats_fields);
	if (dict && (convert_set(dict, "dropped", dropped_dict(&stats)) < 0 ||
		     convert_set(dict, "events", fields_dict(&stats, event_fields)) < 0 ||
		     convert_set(dict, "attribution", attribution_dict(&stats)) < 0 ||
		     convert_set(dict, "latency", convert_histogram(&stats.latency)) < 0 ||
		     convert_set(dict, "sinks", sinks_list(native)) < 0))
		Py_CLEAR(dict);
	return dict;
}

/* More than there will be. */
enum { BACKENDS_MAX = 16 };

static PyObject *backends_list(const struct memwatch_backend_info *infos, int n)
{
	static const struct field fields[] = {
		{ "name", FIELD_TEXT, offsetof(struct memwatch_backend_info, name) },
		{ "usable", FIELD_BOOL, offsetof(struct memwatch_backend_info, usable) },
		{ "chosen", FIELD_BOOL, offsetof(struct memwatch_backend_info, chosen) },
		{ "note", FIELD_CHARS, offsetof(struct memwatch_backend_info, note) },
		{ NULL, FIELD_U64, 0 },
	};
	PyObject *list = PyList_New(0);
	for (int i = 0; list && i < n && i < BACKENDS_MAX; i++) {
		PyObject *dict = PyDict_New();
		if (dict && convert_fields(dict, &infos[i], fields) < 0)
			Py_CLEAR(dict);
		list = append(list, dict);
	}
	return list;
}

PyObject *stats_backends(PyObject *self, PyObject *Py_UNUSED(unused))
{
	struct memwatch_backend_info infos[BACKENDS_MAX];
	memwatch *native = watcher_native((struct watcher *)self);
	return native ? backends_list(infos, memwatch_backend_list(native, infos, BACKENDS_MAX)) : NULL;
}

PyObject *stats_probe(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
	struct memwatch_backend_info infos[BACKENDS_MAX];
	int n;
	Py_BEGIN_ALLOW_THREADS
	n = memwatch_backend_list(NULL, infos, BACKENDS_MAX);
	Py_END_ALLOW_THREADS
	return backends_list(infos, n);
}
