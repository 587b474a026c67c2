/*
 * recorder.c -- DESIGN: memwatch._core_recorder, a module of its own because of the library that it needs: Recorder,
 * which keeps one watcher's events and versions in a file, on a native thread of its own. It is closed before its
 * watcher, by the watcher if nobody did earlier; in a forked child it is left alone. Reading what it kept needs no
 * native code.
 */
#include "api.h"
#include "convert.h"
#include "options.h"

#include <memwatch/recorder.h>

#include <errno.h>
#include <unistd.h>

#define KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

struct recorder {
	PyObject_HEAD struct dependent dependent; /* of which `native` is a memwatch_recorder */
	unsigned n_inside;                        /* under the GIL: flushes under way */
	bool abandoned;                           /* under the GIL: close it when they are out */
};

static void close_native(void *native)
{
	memwatch_recorder_close(native);
}

/* The native recorder, opened without the GIL; NULL with an exception. */
static memwatch_recorder *open_native(struct watcher *watcher, const struct memwatch_recorder_options *options)
{
	memwatch_recorder *native = NULL;
	memwatch *native_watcher = watcher_enter(watcher);
	int error;
	if (!native_watcher)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	error = memwatch_recorder_open(native_watcher, options, &native);
	if (error < 0)
		watcher_leave(watcher);
	Py_END_ALLOW_THREADS
	if (error < 0)
		convert_error(error, memwatch_recorder_error());
	return native;
}

#define AT(member) offsetof(struct memwatch_recorder_options, member)

static const struct option options_table[] = {
	{ "max_bytes", OPTION_U64, AT(max_bytes) },
	{ "commit_ms", OPTION_U32, AT(commit_ms) },
	{ "keep_runs", OPTION_U32, AT(keep_runs) },
	{ "sync", OPTION_BOOL, AT(sync) },
	{ NULL, OPTION_BOOL, 0 },
};

#undef AT

static PyObject *recorder_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *path;
	struct memwatch_recorder_options options;
	struct watcher *watcher;
	memwatch_recorder_options_init(&options);
	if (!PyArg_ParseTuple(args, "O!O&:Recorder", part_watcher_type(), &watcher, PyUnicode_FSConverter, &path))
		return NULL;
	options.path = PyBytes_AS_STRING(path);
	struct recorder *self = NULL;
	if (options_parse(kwargs, "Recorder", options_table, &options) == 0)
		self = (struct recorder *)type->tp_alloc(type, 0);
	if (self)
		self->dependent.native = open_native(watcher, &options);
	Py_DECREF(path);
	if (!self || !self->dependent.native) {
		Py_XDECREF(self);
		return NULL;
	}
	self->dependent.close = close_native;
	dependent_link(&self->dependent, (PyObject *)self, watcher);
	watcher_leave(watcher); /* only now: a close in between would not have seen us */
	return (PyObject *)self;
}

static PyObject *recorder_close(PyObject *object, PyObject *Py_UNUSED(unused))
{
	struct recorder *self = (struct recorder *)object;
	if (self->n_inside) {
		self->abandoned = true;
		Py_RETURN_NONE;
	}
	dependent_close(&self->dependent);
	Py_RETURN_NONE;
}

static void recorder_dealloc(PyObject *object)
{
	struct recorder *self = (struct recorder *)object;
	Py_DECREF(recorder_close(object, NULL));
	Py_XDECREF(self->dependent.watcher);
	Py_TYPE(object)->tp_free(object);
}

/* Whether the recorder can be asked; else an exception. The watcher's close waits until `watcher_leave`. */
static bool enter(struct recorder *self)
{
	if (!watcher_enter(self->dependent.watcher))
		return false;
	if (self->dependent.native)
		return true;
	watcher_leave(self->dependent.watcher);
	convert_error(-EPIPE, "the recorder is closed");
	return false;
}

static PyObject *recorder_flush(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "timeout", NULL };
	struct recorder *self = (struct recorder *)object;
	PyObject *timeout = NULL;
	int result, timeout_ms = 5000;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:flush", names, &timeout))
		return NULL;
	if (timeout && timeout != Py_None && (timeout_ms = convert_timeout(timeout)) < -1)
		return NULL;
	if (!enter(self))
		return NULL;
	self->n_inside++;
	Py_BEGIN_ALLOW_THREADS
	result = memwatch_recorder_flush(self->dependent.native, timeout_ms);
	watcher_leave(self->dependent.watcher);
	Py_END_ALLOW_THREADS
	if (!--self->n_inside && self->abandoned)
		Py_DECREF(recorder_close(object, NULL));
	if (result < 0 && result != -ETIMEDOUT)
		return convert_error(result, memwatch_recorder_error());
	return PyBool_FromLong(result == 0);
}

#define AT(member) offsetof(struct memwatch_recorder_stats, member)

static PyObject *recorder_stats(PyObject *object, PyObject *Py_UNUSED(unused))
{
	static const struct field fields[] = {
		{ "state", FIELD_TEXT, AT(state) },
		{ "run", FIELD_U32, AT(run) },
		{ "events_written", FIELD_U64, AT(events_written) },
		{ "events_missed", FIELD_U64, AT(events_missed) },
		{ "events_evicted", FIELD_U64, AT(events_evicted) },
		{ "versions_written", FIELD_U64, AT(versions_written) },
		{ "versions_skipped", FIELD_U64, AT(versions_skipped) },
		{ "commits", FIELD_U64, AT(commits) },
		{ "committed_seq", FIELD_U64, AT(committed_seq) },
		{ "last_commit_ns", FIELD_U64, AT(last_commit_ns) },
		{ "bytes_used", FIELD_U64, AT(bytes_used) },
		{ "max_bytes", FIELD_U64, AT(max_bytes) },
		{ "errors", FIELD_U64, AT(errors) },
		{ "message", FIELD_CHARS, AT(message) },
		{ NULL, FIELD_U64, 0 },
	};
	struct recorder *self = (struct recorder *)object;
	struct memwatch_recorder_stats stats;
	if (!enter(self))
		return NULL;
	int error = memwatch_recorder_stats_get(self->dependent.native, &stats);
	watcher_leave(self->dependent.watcher);
	if (error < 0)
		return convert_error(error, memwatch_recorder_error());
	PyObject *dict = PyDict_New();
	if (dict && convert_fields(dict, &stats, fields) < 0)
		Py_CLEAR(dict);
	return dict;
}

static PyMethodDef recorder_methods[] = {
	{ "flush", KEYWORDS(recorder_flush), METH_VARARGS | METH_KEYWORDS, NULL },
	{ "stats", recorder_stats, METH_NOARGS, NULL },
	{ "close", recorder_close, METH_NOARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyTypeObject recorder_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "memwatch._core_recorder.Recorder",
	.tp_basicsize = sizeof(struct recorder),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = recorder_new,
	.tp_dealloc = recorder_dealloc,
	.tp_methods = recorder_methods,
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT,
	.m_name = "memwatch._core_recorder",
	.m_size = -1,
};

PyMODINIT_FUNC PyInit__core_recorder(void);

PyMODINIT_FUNC PyInit__core_recorder(void)
{
	PyObject *module = part_init() < 0 ? NULL : PyModule_Create(&module_def);
	if (module && part_add_type(module, "Recorder", &recorder_type) < 0)
		Py_CLEAR(module);
	return module;
}
