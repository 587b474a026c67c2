/*
 * sink.c -- DESIGN: Sink, a cursor on a watcher's events. Reading blocks without the GIL on the reader's thread. The native sink
 * outlives the watcher: what was told before the close is read after it, then the native close wakes who waits. What a slow
 * reader misses is counted natively.
 */
#include "convert.h"

#include <memwatch/reader.h>

#include <unistd.h>

struct sink {
	PyObject_HEAD struct watcher *watcher; /* a reference */
	memwatch_sink *native;                 /* under the GIL; NULL once closed */
	bool reading, abandoned;               /* under the GIL: a read is under way; close it when that is out */
};

static PyObject *sink_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "watcher", "name", "since", NULL };
	struct watcher *watcher;
	const char *name;
	PyObject *since = Py_None;
	uint64_t seq = 0;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!s|O:Sink", names, &watcher_type, &watcher, &name, &since) ||
	    convert_u64(since, "since", &seq) < 0)
		return NULL;
	memwatch *native = watcher_native(watcher);
	struct sink *self = native ? (struct sink *)type->tp_alloc(type, 0) : NULL;
	if (!self)
		return NULL;
	int error = memwatch_sink_open(native, name, &self->native);
	if (error < 0) {
		self->native = NULL;
		convert_error(error, memwatch_error());
		Py_DECREF(self);
		return NULL;
	}
	if (since != Py_None)
		memwatch_sink_seek(self->native, seq);
	self->watcher = (struct watcher *)Py_NewRef((PyObject *)watcher);
	return (PyObject *)self;
}

/* A forked child leaves the parent's alone. */
static bool is_ours(const struct sink *self)
{
	return self->native && self->watcher->pid == getpid();
}

static PyObject *sink_wake(PyObject *object, PyObject *Py_UNUSED(unused))
{
	struct sink *self = (struct sink *)object;
	if (is_ours(self))
		memwatch_sink_wake(self->native);
	Py_RETURN_NONE;
}

static PyObject *sink_close(PyObject *object, PyObject *Py_UNUSED(unused))
{
	struct sink *self = (struct sink *)object;
	if (self->reading) {
		self->abandoned = true;
		return sink_wake(object, NULL);
	}
	memwatch_sink *native = self->native;
	self->native = NULL;
	Py_BEGIN_ALLOW_THREADS
	memwatch_sink_close(native); /* nothing in a forked child */
	Py_END_ALLOW_THREADS
	Py_RETURN_NONE;
}

static void sink_dealloc(PyObject *object)
{
	Py_DECREF(sink_close(object, NULL));
	Py_XDECREF(((struct sink *)object)->watcher);
	Py_TYPE(object)->tp_free(object);
}

static PyObject *sink_read(PyObject *object, PyObject *args, PyObject *kwargs)
{
	enum { LIMIT_MAX = 1024 };
	static char *names[] = { "limit", "timeout", NULL };
	const struct memwatch_event *events[LIMIT_MAX];
	struct sink *self = (struct sink *)object;
	PyObject *timeout = NULL;
	Py_ssize_t limit = 256;
	int n, timeout_ms;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|nO:read", names, &limit, &timeout) ||
	    (timeout_ms = convert_timeout(timeout)) < -1)
		return NULL;
	if (!self->native || self->abandoned)
		Py_RETURN_NONE;
	if (!is_ours(self)) {
		watcher_native(self->watcher); /* says why not */
		return NULL;
	}
	if (self->reading)
		return PyErr_Format(PyExc_ValueError, "another thread is reading this sink");
	self->reading = true;
	limit = limit < 1 ? 1 : limit > LIMIT_MAX ? LIMIT_MAX : limit;
	Py_BEGIN_ALLOW_THREADS
	n = memwatch_sink_read(self->native, events, (size_t)limit, timeout_ms);
	Py_END_ALLOW_THREADS
	self->reading = false;
	if (self->abandoned)
		Py_DECREF(sink_close(object, NULL));
	if (n < 0)
		Py_RETURN_NONE;
	return event_list(events, n);
}

static PyObject *sink_report(PyObject *object, PyObject *args)
{
	struct sink *self = (struct sink *)object;
	unsigned long long duration_ns;
	int failed;
	if (!PyArg_ParseTuple(args, "Kp:report", &duration_ns, &failed))
		return NULL;
	if (is_ours(self))
		memwatch_sink_report(self->native, duration_ns, failed);
	Py_RETURN_NONE;
}

static PyMethodDef sink_methods[] = {
	{ "read", (PyCFunction)(void (*)(void))sink_read, METH_VARARGS | METH_KEYWORDS, NULL },
	{ "wake", sink_wake, METH_NOARGS, NULL },
	{ "report", sink_report, METH_VARARGS, NULL },
	{ "close", sink_close, METH_NOARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

PyTypeObject sink_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "memwatch._core.Sink",
	.tp_basicsize = sizeof(struct sink),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = sink_new,
	.tp_dealloc = sink_dealloc,
	.tp_methods = sink_methods,
};
