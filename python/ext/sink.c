/*
 * sink.c -- DESIGN: Sink, a cursor on a watcher's events. Reading blocks without the GIL on the reader's thread; the watcher's
 * close wakes it and closes the native sink when the reader is out. What a slow reader misses is counted natively.
 */
#include "convert.h"

#include <unistd.h>

struct sink {
	PyObject_HEAD struct dependent dependent; /* of which `native` is a memwatch_sink */
	bool reading, abandoned;                  /* under the GIL: a read is under way; close it when that is out */
};

static void wake_native(void *native)
{
	memwatch_sink_wake(native);
}

static void close_native(void *native)
{
	memwatch_sink_close(native);
}

static PyObject *sink_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "watcher", "name", NULL };
	struct watcher *watcher;
	const char *name;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!s:Sink", names, &watcher_type, &watcher, &name))
		return NULL;
	memwatch *native = watcher_native(watcher);
	struct sink *self = native ? (struct sink *)type->tp_alloc(type, 0) : NULL;
	if (!self)
		return NULL;
	memwatch_sink *sink;
	int error = memwatch_sink_open(native, name, &sink);
	if (error < 0) {
		convert_error(error, memwatch_error());
		Py_DECREF(self);
		return NULL;
	}
	self->dependent.native = sink;
	self->dependent.wake = wake_native;
	self->dependent.close = close_native;
	dependent_link(&self->dependent, (PyObject *)self, watcher);
	return (PyObject *)self;
}

static PyObject *sink_wake(PyObject *object, PyObject *Py_UNUSED(unused))
{
	struct sink *self = (struct sink *)object;
	if (self->dependent.native && watcher_is_open(self->dependent.watcher))
		memwatch_sink_wake(self->dependent.native);
	Py_RETURN_NONE;
}

static PyObject *sink_close(PyObject *object, PyObject *Py_UNUSED(unused))
{
	struct sink *self = (struct sink *)object;
	if (self->reading) {
		self->abandoned = true;
		return sink_wake(object, NULL);
	}
	dependent_close(&self->dependent);
	Py_RETURN_NONE;
}

static void sink_dealloc(PyObject *object)
{
	Py_DECREF(sink_close(object, NULL));
	Py_XDECREF(((struct sink *)object)->dependent.watcher);
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
	if (!self->dependent.native || self->abandoned || !watcher_is_open(self->dependent.watcher))
		Py_RETURN_NONE;
	if (self->reading)
		return PyErr_Format(PyExc_ValueError, "another thread is reading this sink");
	if (!watcher_enter(self->dependent.watcher))
		return NULL;
	self->reading = true;
	limit = limit < 1 ? 1 : limit > LIMIT_MAX ? LIMIT_MAX : limit;
	Py_BEGIN_ALLOW_THREADS
	n = memwatch_sink_read(self->dependent.native, events, (size_t)limit, timeout_ms);
	watcher_leave(self->dependent.watcher);
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
	if (self->dependent.native && watcher_is_open(self->dependent.watcher))
		memwatch_sink_report(self->dependent.native, duration_ns, failed);
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
