/*
 * recording.c -- DESIGN: Recording, which reads what a Recorder kept. Every call is one short native transaction without the GIL;
 * what it read becomes dictionaries, by the tables below. Calls count themselves in, so that a close from another thread
 * happens when the last one is out.
 */
#ifdef MEMWATCH_WITH_RECORDER

#include "convert.h"

#include <memwatch/recorder.h>

#include <errno.h>
#include <limits.h>

#define KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

struct recording {
	PyObject_HEAD memwatch_recording *native; /* NULL once closed */
	unsigned n_inside;                        /* under the GIL: calls under way */
	bool closing;                             /* under the GIL */
};

static PyObject *fail(int error)
{
	return convert_lookup_error(error, memwatch_recorder_error());
}

static memwatch_recording *enter(struct recording *self)
{
	if (self->closing || !self->native) {
		PyErr_SetString(PyExc_ValueError, "the recording is closed");
		return NULL;
	}
	self->n_inside++;
	return self->native;
}

static void leave(struct recording *self)
{
	if (--self->n_inside || !self->closing)
		return;
	memwatch_recording_close(self->native);
	self->native = NULL;
}

static PyObject *recording_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "path", NULL };
	memwatch_recording *native;
	PyObject *path;
	int error;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&:Recording", names, PyUnicode_FSConverter, &path))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	error = memwatch_recording_open(PyBytes_AS_STRING(path), &native);
	Py_END_ALLOW_THREADS
	Py_DECREF(path);
	if (error < 0)
		return convert_error(error, memwatch_recorder_error());
	struct recording *self = (struct recording *)type->tp_alloc(type, 0);
	if (self)
		self->native = native;
	else
		memwatch_recording_close(native);
	return (PyObject *)self;
}

static PyObject *recording_close(PyObject *object, PyObject *Py_UNUSED(unused))
{
	struct recording *self = (struct recording *)object;
	if (!self->closing && self->native) {
		self->n_inside++;
		self->closing = true;
		leave(self);
	}
	Py_RETURN_NONE;
}

static void recording_dealloc(PyObject *object)
{
	Py_DECREF(recording_close(object, NULL));
	Py_TYPE(object)->tp_free(object);
}

/* Appends `item` to `list`; takes over both references, and returns the list or NULL. */
static PyObject *append(PyObject *list, PyObject *item)
{
	if (list && (!item || PyList_Append(list, item) < 0))
		Py_CLEAR(list);
	Py_XDECREF(item);
	return list;
}

static PyObject *fields_dict(const void *base, const struct field *fields)
{
	PyObject *dict = PyDict_New();
	if (dict && convert_fields(dict, base, fields) < 0)
		Py_CLEAR(dict);
	return dict;
}

/* --- runs --- */

#define RUN(member) offsetof(struct memwatch_recording_run, member)

static const struct field run_fields[] = {
	{ "run", FIELD_U32, RUN(run) },
	{ "epoch", FIELD_U64, RUN(epoch) },
	{ "pid", FIELD_I32, RUN(pid) },
	{ "program", FIELD_CHARS, RUN(program) },
	{ "host", FIELD_CHARS, RUN(host) },
	{ "start_ns", FIELD_U64, RUN(start_ns) },
	{ "end_ns", FIELD_U64, RUN(end_ns) },
	{ "last_commit_ns", FIELD_U64, RUN(last_commit_ns) },
	{ "oldest_seq", FIELD_U64, RUN(oldest_seq) },
	{ "newest_seq", FIELD_U64, RUN(newest_seq) },
	{ "events_written", FIELD_U64, RUN(events_written) },
	{ "events_evicted", FIELD_U64, RUN(events_evicted) },
	{ "events_missed", FIELD_U64, RUN(events_missed) },
	{ "live", FIELD_BOOL, RUN(live) },
	{ NULL, FIELD_U64, 0 },
};

static PyObject *recording_runs(PyObject *object, PyObject *Py_UNUSED(unused))
{
	enum { BATCH = 16 };
	struct memwatch_recording_run infos[BATCH];
	struct recording *self = (struct recording *)object;
	uint32_t after = 0;
	int n = BATCH;
	memwatch_recording *native = enter(self);
	if (!native)
		return NULL;
	PyObject *list = PyList_New(0);
	while (list && n == BATCH) {
		Py_BEGIN_ALLOW_THREADS
		n = memwatch_recording_runs(native, after, infos, BATCH);
		Py_END_ALLOW_THREADS
		for (int i = 0; list && i < n; i++)
			list = append(list, fields_dict(&infos[i], run_fields));
		if (n > 0)
			after = infos[n - 1].run;
	}
	leave(self);
	if (n >= 0)
		return list;
	Py_XDECREF(list);
	return fail(n);
}

/* --- regions --- */

#define REGION(member) offsetof(struct memwatch_recording_region, member)

static const struct field region_fields[] = {
	{ "run", FIELD_U32, REGION(run) },
	{ "id", FIELD_U64, REGION(id) },
	{ "name", FIELD_CHARS, REGION(name) },
	{ "format", FIELD_CHARS, REGION(format) },
	{ "size_bytes", FIELD_U64, REGION(size_bytes) },
	{ "item_bytes", FIELD_U64, REGION(item_bytes) },
	{ "fortran_order", FIELD_BOOL, REGION(fortran_order) },
	{ "first_seq", FIELD_U64, REGION(first_seq) },
	{ "last_seq", FIELD_U64, REGION(last_seq) },
	{ "last_time_ns", FIELD_U64, REGION(last_time_ns) },
	{ NULL, FIELD_U64, 0 },
};

static PyObject *region_dict(const struct memwatch_recording_region *info)
{
	PyObject *dict = fields_dict(info, region_fields);
	PyObject *oldest = dict && info->oldest_value_seq != UINT64_MAX
				   ? PyLong_FromUnsignedLongLong(info->oldest_value_seq)
				   : Py_BuildValue("");
	if (!dict || convert_set(dict, "oldest_value_seq", oldest) < 0 ||
	    convert_set(dict, "shape", convert_shape(info->shape, info->n_dims)) < 0 ||
	    convert_set(dict, "values", convert_text(convert_values_text(info->values))) < 0)
		Py_CLEAR(dict);
	return dict;
}

static PyObject *recording_regions(PyObject *object, PyObject *args)
{
	enum { BATCH = 32 };
	struct memwatch_recording_region infos[BATCH];
	struct recording *self = (struct recording *)object;
	unsigned long long after = 0;
	unsigned run, limit = UINT_MAX;
	int n = BATCH;
	if (!PyArg_ParseTuple(args, "I|KI:regions", &run, &after, &limit))
		return NULL;
	memwatch_recording *native = enter(self);
	if (!native)
		return NULL;
	PyObject *list = PyList_New(0);
	for (; list && n == BATCH && limit; limit -= (unsigned)n) {
		Py_BEGIN_ALLOW_THREADS
		n = memwatch_recording_regions(native, run, after, infos, limit < BATCH ? limit : BATCH);
		Py_END_ALLOW_THREADS
		for (int i = 0; list && i < n; i++)
			list = append(list, region_dict(&infos[i]));
		if (n < 0)
			break;
		if (n > 0)
			after = infos[n - 1].id;
	}
	leave(self);
	if (n >= 0)
		return list;
	Py_XDECREF(list);
	return fail(n);
}

/* --- events --- */

#define EVENT(member) offsetof(struct memwatch_recorded, event.member)

static const struct field event_fields[] = {
	{ "run", FIELD_U32, offsetof(struct memwatch_recorded, run) },
	{ "had_values", FIELD_BOOL, offsetof(struct memwatch_recorded, had_values) },
	{ "seq", FIELD_U64, EVENT(seq) },
	{ "time_ns", FIELD_U64, EVENT(time_ns) },
	{ "detected_ns", FIELD_U64, EVENT(detected_ns) },
	{ "region_id", FIELD_U64, EVENT(region_id) },
	{ "name", FIELD_TEXT, EVENT(name) },
	{ "backend", FIELD_TEXT, EVENT(backend) },
	{ "size_bytes", FIELD_U64, EVENT(size_bytes) },
	{ "storage_key_old", FIELD_KEY, EVENT(storage_key_old) },
	{ "storage_key_new", FIELD_KEY, EVENT(storage_key_new) },
	{ "changed_bytes", FIELD_U64, EVENT(changed_bytes) },
	{ "merged", FIELD_U64, EVENT(merged) },
	{ "format", FIELD_TEXT, EVENT(format) },
	{ "item_bytes", FIELD_U64, EVENT(item_bytes) },
	{ "fortran_order", FIELD_BOOL, EVENT(fortran_order) },
	{ "fault_ip", FIELD_U64, EVENT(where.fault_ip) },
	{ "fault_address", FIELD_U64, EVENT(where.fault_address) },
	{ "thread_id", FIELD_I32, EVENT(where.thread_id) },
	{ "thread_name", FIELD_TEXT, EVENT(where.thread_name) },
	{ "symbol", FIELD_TEXT, EVENT(where.symbol) },
	{ "object", FIELD_TEXT, EVENT(where.object) },
	{ "offset", FIELD_U64, EVENT(where.offset) },
	{ "native_file", FIELD_TEXT, EVENT(where.native.file) },
	{ "native_line", FIELD_I32, EVENT(where.native.line) },
	{ NULL, FIELD_U64, 0 },
};

static PyObject *changes_list(const struct memwatch_event *event)
{
	PyObject *list = PyList_New(0);
	for (uint32_t i = 0; list && i < event->n_changes; i++)
		list = append(list, Py_BuildValue("(KK)", (unsigned long long)event->changes[i].offset,
						  (unsigned long long)event->changes[i].size_bytes));
	return list;
}

static PyObject *frames_list(const struct memwatch_where *where)
{
	PyObject *list = PyList_New(0);
	for (uint32_t i = 0; list && i < where->n_frames; i++) {
		const struct memwatch_frame *frame = &where->frames[i];
		PyObject *file = convert_text(frame->file), *function = convert_text(frame->function);
		PyObject *item = file && function ? Py_BuildValue("(OOi)", file, function, frame->line) : NULL;
		Py_XDECREF(file);
		Py_XDECREF(function);
		list = append(list, item);
	}
	return list;
}

static PyObject *preview(const uint8_t *bytes, uint64_t value_bytes, uint64_t preview_bytes)
{
	uint64_t n = value_bytes < preview_bytes ? value_bytes : preview_bytes;
	return bytes ? PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)n) : Py_BuildValue("");
}

static PyObject *hash_or_none(const struct memwatch_event *event, uint64_t hash)
{
	return event->values == MEMWATCH_VALUES_HASH ? PyLong_FromUnsignedLongLong(hash) : Py_BuildValue("");
}

static PyObject *event_dict(const struct memwatch_recorded *recorded)
{
	const struct memwatch_event *event = &recorded->event;
	const struct memwatch_where *where = &event->where;
	PyObject *dict = fields_dict(recorded, event_fields);
	if (!dict ||
	    convert_set(dict, "kind", PyUnicode_FromString(event->kind == MEMWATCH_EVENT_LOST ? "lost" : "change")) <
		    0 ||
	    convert_set(dict, "values", PyUnicode_FromString(convert_values_text(event->values))) < 0 ||
	    convert_set(dict, "attribution", PyUnicode_FromString(memwatch_attribution_text(where->attribution))) < 0 ||
	    convert_set(dict, "reason", PyUnicode_FromString(memwatch_reason_text(where->reason))) < 0 ||
	    convert_set(dict, "shape", convert_shape(event->shape, event->n_dims)) < 0 ||
	    convert_set(dict, "changes", changes_list(event)) < 0 ||
	    convert_set(dict, "frames", frames_list(where)) < 0 ||
	    convert_set(dict, "old_preview", preview(event->old_preview, event->old_bytes, event->preview_bytes)) < 0 ||
	    convert_set(dict, "new_preview", preview(event->new_preview, event->new_bytes, event->preview_bytes)) < 0 ||
	    convert_set(dict, "old_hash", hash_or_none(event, event->old_hash)) < 0 ||
	    convert_set(dict, "new_hash", hash_or_none(event, event->new_hash)) < 0)
		Py_CLEAR(dict);
	return dict;
}

static PyObject *events_list(struct memwatch_recorded **events, int n)
{
	PyObject *list = PyList_New(0);
	for (int i = 0; i < n; i++) {
		if (list)
			list = append(list, event_dict(events[i]));
		memwatch_recorded_free(events[i]);
	}
	return list;
}

static PyObject *recording_read(PyObject *object, PyObject *args, PyObject *kwargs)
{
	enum { LIMIT_MAX = 1024 };
	static char *names[] = { "run", "after_run", "after_seq", "since_ns", "until_ns", "name", "limit", NULL };
	struct memwatch_recording_query query = { .struct_bytes = sizeof query };
	struct memwatch_recording_position position = { 0 };
	struct memwatch_recorded *events[LIMIT_MAX];
	unsigned long long after_seq = 0, since_ns = 0, until_ns = 0;
	struct recording *self = (struct recording *)object;
	unsigned limit = 256;
	int n;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$IIKKKzI:read", names, &query.run, &position.run, &after_seq,
					 &since_ns, &until_ns, &query.name, &limit))
		return NULL;
	position.seq = after_seq;
	query.since_ns = since_ns;
	query.until_ns = until_ns;
	memwatch_recording *native = enter(self);
	if (!native)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	n = memwatch_recording_read(native, &query, &position, events, limit < LIMIT_MAX ? limit : LIMIT_MAX);
	Py_END_ALLOW_THREADS
	leave(self);
	return n < 0 ? fail(n) : events_list(events, n);
}

/* --- values --- */

static PyObject *recording_find(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "name", "seq", "time_ns", "run", NULL };
	struct recording *self = (struct recording *)object;
	struct memwatch_recording_version version;
	unsigned long long seq = 0, time_ns = 0;
	unsigned run = 0;
	const char *name;
	int error;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|$KKI:find", names, &name, &seq, &time_ns, &run))
		return NULL;
	memwatch_recording *native = enter(self);
	if (!native)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	error = memwatch_recording_find(native, run, name, seq, time_ns, &version);
	Py_END_ALLOW_THREADS
	leave(self);
	if (error < 0)
		return fail(error);
	return Py_BuildValue("(IKK)", version.run, (unsigned long long)version.region_id,
			     (unsigned long long)version.seq);
}

static int64_t read_value(memwatch_recording *native, unsigned run, uint64_t region_id, uint64_t seq, void *buffer,
			  size_t size)
{
	int64_t result;
	Py_BEGIN_ALLOW_THREADS
	result = memwatch_recording_value(native, run, region_id, seq, buffer, size);
	Py_END_ALLOW_THREADS
	return result;
}

static PyObject *recording_value(PyObject *object, PyObject *args)
{
	struct recording *self = (struct recording *)object;
	unsigned long long region_id, seq;
	PyObject *bytes = NULL;
	unsigned run;
	if (!PyArg_ParseTuple(args, "IKK:value", &run, &region_id, &seq))
		return NULL;
	memwatch_recording *native = enter(self);
	if (!native)
		return NULL;
	int64_t size = read_value(native, run, region_id, seq, NULL, 0), n = size;
	if (size >= 0)
		bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
	if (bytes)
		n = read_value(native, run, region_id, seq, PyBytes_AS_STRING(bytes), (size_t)size);
	leave(self);
	if (bytes && n == size)
		return bytes;
	Py_XDECREF(bytes);
	if (n == -ENODATA)
		Py_RETURN_NONE;
	return PyErr_Occurred() ? NULL : fail((int)(n < 0 ? n : -EIO));
}

static PyObject *get_closed(PyObject *object, void *Py_UNUSED(closure))
{
	const struct recording *self = (struct recording *)object;
	return PyBool_FromLong(self->closing || !self->native);
}

static PyGetSetDef recording_getset[] = {
	{ "closed", get_closed, NULL, NULL, NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyMethodDef recording_methods[] = {
	{ "runs", recording_runs, METH_NOARGS, NULL },
	{ "regions", recording_regions, METH_VARARGS, NULL },
	{ "read", KEYWORDS(recording_read), METH_VARARGS | METH_KEYWORDS, NULL },
	{ "find", KEYWORDS(recording_find), METH_VARARGS | METH_KEYWORDS, NULL },
	{ "value", recording_value, METH_VARARGS, NULL },
	{ "close", recording_close, METH_NOARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

PyTypeObject recording_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "memwatch._core.Recording",
	.tp_basicsize = sizeof(struct recording),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = recording_new,
	.tp_dealloc = recording_dealloc,
	.tp_getset = recording_getset,
	.tp_methods = recording_methods,
};

#endif
