/*
 * post.c -- DESIGN: events from elsewhere, for external regions: what an adapter found in Python becomes an event like
 * any other. Runs on the caller's thread, perhaps inside a trace function, and keeps the GIL: it copies a few strings
 * and appends to the log, which never waits for a reader.
 */
#include "convert.h"

#include <string.h>

struct frames {
	PyObject *sequence; /* keeps the strings alive during the call */
	struct memwatch_frame frames[MEMWATCH_STACK_MAX];
	uint32_t n;
};

static int parse_attribution(const char *text, enum memwatch_attribution *ret_attribution)
{
	for (unsigned i = 0; i <= MEMWATCH_ATTRIBUTION_EXACT; i++)
		if (strcmp(text, memwatch_attribution_text((enum memwatch_attribution)i)) == 0) {
			*ret_attribution = (enum memwatch_attribution)i;
			return 0;
		}
	PyErr_Format(PyExc_ValueError, "attribution=\"%s\": it is one of \"exact\", \"page\", \"none\"", text);
	return -1;
}

static int parse_reason(const char *text, enum memwatch_reason *ret_reason)
{
	if (strcmp(text, "none") == 0)
		text = memwatch_reason_text(MEMWATCH_REASON_NONE);
	for (unsigned i = 0; i < MEMWATCH_REASONS; i++)
		if (strcmp(text, memwatch_reason_text((enum memwatch_reason)i)) == 0) {
			*ret_reason = (enum memwatch_reason)i;
			return 0;
		}
	PyErr_Format(PyExc_ValueError, "reason=\"%s\" is not a reason that events have", text);
	return -1;
}

static int parse_frames(PyObject *object, struct frames *frames)
{
	if (!object)
		return 0;
	frames->sequence = PySequence_Fast(object, "frames is a sequence of (file, function, line)");
	if (!frames->sequence)
		return -1;
	Py_ssize_t n = PySequence_Fast_GET_SIZE(frames->sequence);
	for (Py_ssize_t i = 0; i < n && i < MEMWATCH_STACK_MAX; i++, frames->n++) {
		struct memwatch_frame *frame = &frames->frames[i];
		PyObject *item = PySequence_Fast_GET_ITEM(frames->sequence, i);
		if (!PyTuple_Check(item)) {
			PyErr_SetString(PyExc_TypeError, "frames is a sequence of (file, function, line)");
			return -1;
		}
		if (!PyArg_ParseTuple(item, "ssi", &frame->file, &frame->function, &frame->line))
			return -1;
	}
	return 0;
}

/* A bool, an int of 64 bits or a float; anything else is no number. */
static struct memwatch_scalar scalar_of(PyObject *object)
{
	struct memwatch_scalar scalar = { 0 };
	if (object && PyFloat_CheckExact(object)) {
		scalar.number = MEMWATCH_NUMBER_DOUBLE;
		scalar.value.as_double = PyFloat_AS_DOUBLE(object);
	} else if (object && (PyLong_CheckExact(object) || PyBool_Check(object))) {
		int overflow = 0;
		scalar.value.as_int = PyLong_AsLongLongAndOverflow(object, &overflow);
		scalar.number = overflow ? MEMWATCH_NUMBER_NONE : MEMWATCH_NUMBER_INT;
	}
	return scalar;
}

PyObject *post_number_set(PyObject *self, PyObject *args)
{
	unsigned long long region_id;
	PyObject *value;
	if (!PyArg_ParseTuple(args, "KO:number_set", &region_id, &value))
		return NULL;
	struct memwatch_scalar scalar = scalar_of(value);
	memwatch *native = watcher_native((struct watcher *)self);
	int error = native ? memwatch_external_set(native, region_id, &scalar) : 0;
	if (!native)
		return NULL;
	return error < 0 ? convert_lookup_error(error, memwatch_error()) : Py_NewRef(Py_None);
}

static int parse(PyObject *args, PyObject *kwargs, unsigned long long *ret_region_id, struct memwatch_post *post,
		 struct frames *frames)
{
	static char *names[] = { "region_id",   "old",        "new",         "time_ns", "thread_id",
				 "thread_name", "frames",     "attribution", "reason",  "backend",
				 "old_number",  "new_number", NULL };
	const char *attribution = "exact", *reason = "none";
	unsigned long long time_ns = 0;
	Py_ssize_t old_bytes = 0, new_bytes = 0;
	PyObject *frame_objects = NULL, *old_number = NULL, *new_number = NULL;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "K|$z#z#KisOsssOO:post", names, ret_region_id,
					 (const char **)&post->old_value, &old_bytes, (const char **)&post->new_value,
					 &new_bytes, &time_ns, &post->thread_id, &post->thread_name, &frame_objects,
					 &attribution, &reason, &post->backend, &old_number, &new_number) ||
	    parse_attribution(attribution, &post->attribution) < 0 || parse_reason(reason, &post->reason) < 0)
		return -1;
	post->old_bytes = (size_t)old_bytes;
	post->new_bytes = (size_t)new_bytes;
	post->time_ns = time_ns;
	post->old_number = scalar_of(old_number);
	post->new_number = scalar_of(new_number);
	int result = parse_frames(frame_objects, frames);
	post->frames = frames->frames;
	post->n_frames = frames->n;
	return result;
}

PyObject *post_append(PyObject *self, PyObject *args, PyObject *kwargs)
{
	struct memwatch_post post = { .struct_bytes = sizeof post };
	struct frames frames = { 0 };
	unsigned long long region_id;
	uint64_t seq = 0;
	int error = 0;
	bool parsed = parse(args, kwargs, &region_id, &post, &frames) == 0;
	memwatch *native = parsed ? watcher_native((struct watcher *)self) : NULL;
	if (native)
		error = memwatch_event_post(native, region_id, &post, &seq);
	Py_XDECREF(frames.sequence);
	if (!native)
		return NULL;
	return error < 0 ? convert_lookup_error(error, memwatch_error()) : PyLong_FromUnsignedLongLong(seq);
}
