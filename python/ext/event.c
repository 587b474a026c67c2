/*
 * event.c -- DESIGN: Event, one reference to an immutable native event. Attributes are made from it when they are asked
 * for, so that an event nobody looks into costs one small object. Plain fields stand in a table; the rest have getters.
 */
#include "convert.h"

struct event_object {
	PyObject_HEAD const struct memwatch_event *event;
};

static const struct memwatch_event *event_of(PyObject *self)
{
	return ((struct event_object *)self)->event;
}

PyObject *event_list(const struct memwatch_event **events, int n)
{
	PyObject *list = PyList_New(n);
	for (int i = 0; i < n; i++) {
		struct event_object *self = list ? PyObject_New(struct event_object, &event_type) : NULL;
		if (!self) {
			memwatch_event_unref(events[i]);
			Py_CLEAR(list);
			continue;
		}
		self->event = events[i];
		PyList_SET_ITEM(list, i, (PyObject *)self);
	}
	return list;
}

static void event_dealloc(PyObject *self)
{
	memwatch_event_unref(event_of(self));
	PyObject_Free(self);
}

static PyObject *get_field(PyObject *self, void *closure)
{
	const struct field *field = closure;
	return convert_field(event_of(self), field->kind, field->offset);
}

/* Python's side tells a page's writer from the change's by the attribution: see _event.py. */
static const struct memwatch_where *writer_of(const struct memwatch_event *event)
{
	return event->where.page_writer ? event->where.page_writer : &event->where;
}

static PyObject *get_writer_field(PyObject *self, void *closure)
{
	const struct field *field = closure;
	return convert_field(writer_of(event_of(self)), field->kind, field->offset);
}

static PyObject *bytes_or_none(const uint8_t *bytes, uint64_t n)
{
	return bytes ? PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)n) : Py_BuildValue("");
}

static PyObject *get_old_value(PyObject *self, void *Py_UNUSED(closure))
{
	return bytes_or_none(event_of(self)->old_value, event_of(self)->old_bytes);
}

static PyObject *get_new_value(PyObject *self, void *Py_UNUSED(closure))
{
	return bytes_or_none(event_of(self)->new_value, event_of(self)->new_bytes);
}

static uint64_t preview_bytes(const struct memwatch_event *event, uint64_t value_bytes)
{
	return event->preview_bytes < value_bytes ? event->preview_bytes : value_bytes;
}

static PyObject *get_old_preview(PyObject *self, void *Py_UNUSED(closure))
{
	const struct memwatch_event *event = event_of(self);
	return bytes_or_none(event->old_preview, preview_bytes(event, event->old_bytes));
}

static PyObject *get_new_preview(PyObject *self, void *Py_UNUSED(closure))
{
	const struct memwatch_event *event = event_of(self);
	return bytes_or_none(event->new_preview, preview_bytes(event, event->new_bytes));
}

static PyObject *hash_or_none(const struct memwatch_event *event, uint64_t hash)
{
	return event->values == MEMWATCH_VALUES_HASH ? PyLong_FromUnsignedLongLong(hash) : Py_BuildValue("");
}

static PyObject *get_old_hash(PyObject *self, void *Py_UNUSED(closure))
{
	return hash_or_none(event_of(self), event_of(self)->old_hash);
}

static PyObject *get_new_hash(PyObject *self, void *Py_UNUSED(closure))
{
	return hash_or_none(event_of(self), event_of(self)->new_hash);
}

static PyObject *get_kind(PyObject *self, void *Py_UNUSED(closure))
{
	return PyUnicode_FromString(event_of(self)->kind == MEMWATCH_EVENT_LOST ? "lost" : "change");
}

static PyObject *get_values(PyObject *self, void *Py_UNUSED(closure))
{
	return PyUnicode_FromString(convert_values_text(event_of(self)->values));
}

static PyObject *get_attribution(PyObject *self, void *Py_UNUSED(closure))
{
	return PyUnicode_FromString(memwatch_attribution_text(event_of(self)->where.attribution));
}

static PyObject *get_reason(PyObject *self, void *Py_UNUSED(closure))
{
	return PyUnicode_FromString(memwatch_reason_text(event_of(self)->where.reason));
}

static PyObject *get_shape(PyObject *self, void *Py_UNUSED(closure))
{
	return convert_shape(event_of(self)->shape, event_of(self)->n_dims);
}

static PyObject *get_changes(PyObject *self, void *Py_UNUSED(closure))
{
	const struct memwatch_event *event = event_of(self);
	PyObject *list = PyList_New(0);
	for (uint32_t i = 0; list && i < event->n_changes; i++) {
		PyObject *range = Py_BuildValue("(KK)", (unsigned long long)event->changes[i].offset,
						(unsigned long long)event->changes[i].size_bytes);
		if (!range || PyList_Append(list, range) < 0)
			Py_CLEAR(list);
		Py_XDECREF(range);
	}
	return list;
}

/* Both sides of an excerpt have the same runs. */
static PyObject *get_excerpt(PyObject *self, void *Py_UNUSED(closure))
{
	const struct memwatch_event *event = event_of(self);
	uint64_t run[2];
	PyObject *list = PyList_New(0);
	for (uint64_t at = 0; list && at < event->excerpt_bytes; at += sizeof run + run[1]) {
		const char *before = (const char *)event->old_excerpt + at;
		const char *after = (const char *)event->new_excerpt + at;
		memcpy(run, before, sizeof run);
		PyObject *piece = Py_BuildValue("(Ky#y#)", (unsigned long long)run[0], before + sizeof run,
						(Py_ssize_t)run[1], after + sizeof run, (Py_ssize_t)run[1]);
		if (!piece || PyList_Append(list, piece) < 0)
			Py_CLEAR(list);
		Py_XDECREF(piece);
	}
	return list;
}

static PyObject *get_frames(PyObject *self, void *Py_UNUSED(closure))
{
	const struct memwatch_where *where = writer_of(event_of(self));
	PyObject *list = PyList_New(0);
	for (uint32_t i = 0; list && i < where->n_frames; i++) {
		PyObject *file = convert_text(where->frames[i].file),
			 *function = convert_text(where->frames[i].function);
		PyObject *frame = file && function ? Py_BuildValue("(OOi)", file, function, where->frames[i].line)
						   : NULL;
		if (!frame || PyList_Append(list, frame) < 0)
			Py_CLEAR(list);
		Py_XDECREF(file);
		Py_XDECREF(function);
		Py_XDECREF(frame);
	}
	return list;
}

#define FIELD(name, kind, member)                                                                                      \
	{                                                                                                              \
		name, get_field, NULL, NULL, &(struct field)                                                           \
		{                                                                                                      \
			name, kind, offsetof(struct memwatch_event, member)                                            \
		}                                                                                                      \
	}

#define WRITER(name, kind, member)                                                                                     \
	{                                                                                                              \
		name, get_writer_field, NULL, NULL, &(struct field)                                                    \
		{                                                                                                      \
			name, kind, offsetof(struct memwatch_where, member)                                            \
		}                                                                                                      \
	}

static PyGetSetDef event_getset[] = {
	FIELD("seq", FIELD_U64, seq),
	FIELD("time_ns", FIELD_U64, time_ns),
	FIELD("detected_ns", FIELD_U64, detected_ns),
	FIELD("region_id", FIELD_U64, region_id),
	FIELD("name", FIELD_TEXT, name),
	FIELD("backend", FIELD_TEXT, backend),
	FIELD("size_bytes", FIELD_U64, size_bytes),
	FIELD("storage_key_old", FIELD_KEY, storage_key_old),
	FIELD("storage_key_new", FIELD_KEY, storage_key_new),
	FIELD("changed_bytes", FIELD_U64, changed_bytes),
	FIELD("merged", FIELD_U64, merged),
	FIELD("format", FIELD_TEXT, format),
	FIELD("item_bytes", FIELD_U64, item_bytes),
	FIELD("fortran_order", FIELD_BOOL, fortran_order),
	WRITER("fault_ip", FIELD_U64, fault_ip),
	WRITER("fault_address", FIELD_U64, fault_address),
	WRITER("thread_id", FIELD_I32, thread_id),
	WRITER("thread_name", FIELD_TEXT, thread_name),
	WRITER("symbol", FIELD_TEXT, symbol),
	WRITER("object", FIELD_TEXT, object),
	WRITER("offset", FIELD_U64, offset),
	WRITER("native_file", FIELD_TEXT, native.file),
	WRITER("native_line", FIELD_I32, native.line),
	WRITER("libc_function", FIELD_TEXT, libc_function),
	{ "kind", get_kind, NULL, NULL, NULL },
	{ "values", get_values, NULL, NULL, NULL },
	{ "old_value", get_old_value, NULL, NULL, NULL },
	{ "new_value", get_new_value, NULL, NULL, NULL },
	{ "old_preview", get_old_preview, NULL, NULL, NULL },
	{ "new_preview", get_new_preview, NULL, NULL, NULL },
	{ "old_hash", get_old_hash, NULL, NULL, NULL },
	{ "new_hash", get_new_hash, NULL, NULL, NULL },
	{ "changes", get_changes, NULL, NULL, NULL },
	{ "excerpt", get_excerpt, NULL, NULL, NULL },
	{ "shape", get_shape, NULL, NULL, NULL },
	{ "attribution", get_attribution, NULL, NULL, NULL },
	{ "reason", get_reason, NULL, NULL, NULL },
	{ "frames", get_frames, NULL, NULL, NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

PyTypeObject event_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "memwatch._core.Event",
	.tp_basicsize = sizeof(struct event_object),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_dealloc = event_dealloc,
	.tp_getset = event_getset,
};
