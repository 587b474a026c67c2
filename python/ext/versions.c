/*
 * versions.c -- DESIGN: versions: what a region held, when, and who last wrote a part of it. Versions are rebuilt
 * natively on the caller's thread, without the GIL where that may take long. What was evicted is a KeyError that names
 * the oldest kept.
 */
#include "convert.h"

#include <errno.h>

enum { EVENTS_MAX = 4096 };

/* A bytes object of `size` that `read` has filled, or NULL with an exception. Takes over nothing. */
static PyObject *finish_bytes(PyObject *bytes, int64_t size, int64_t read)
{
	if (size >= 0 && bytes && read >= PyBytes_GET_SIZE(bytes))
		return bytes;
	Py_XDECREF(bytes);
	if (PyErr_Occurred())
		return NULL;
	return convert_lookup_error((int)(size < 0 ? size : read < 0 ? read : -EIO), memwatch_error());
}

PyObject *versions_load(PyObject *self, PyObject *args)
{
	struct watcher *watcher = (struct watcher *)self;
	const char *key;
	PyObject *bytes = NULL;
	Py_ssize_t limit = PY_SSIZE_T_MAX;
	int64_t size, read = 0;
	if (!PyArg_ParseTuple(args, "s|n:load", &key, &limit))
		return NULL;
	memwatch *native = watcher_enter(watcher);
	if (!native)
		return NULL;
	size = memwatch_load(native, key, NULL, 0);
	if (size >= 0)
		bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(size < limit ? size : limit));
	if (bytes) {
		Py_BEGIN_ALLOW_THREADS
		read = memwatch_load(native, key, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
		Py_END_ALLOW_THREADS
	}
	watcher_leave(watcher);
	return finish_bytes(bytes, size, read);
}

PyObject *versions_version(PyObject *self, PyObject *args)
{
	struct watcher *watcher = (struct watcher *)self;
	unsigned long long id, seq;
	PyObject *bytes = NULL;
	int64_t size, read = 0;
	if (!PyArg_ParseTuple(args, "KK:version", &id, &seq))
		return NULL;
	memwatch *native = watcher_enter(watcher);
	if (!native)
		return NULL;
	size = memwatch_version_read(native, id, seq, NULL, 0);
	if (size >= 0)
		bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
	if (bytes) {
		Py_BEGIN_ALLOW_THREADS
		read = memwatch_version_read(native, id, seq, PyBytes_AS_STRING(bytes), (size_t)size);
		Py_END_ALLOW_THREADS
	}
	watcher_leave(watcher);
	return finish_bytes(bytes, size, read);
}

PyObject *versions_version_at(PyObject *self, PyObject *args)
{
	unsigned long long id, time_ns;
	uint64_t seq = 0;
	if (!PyArg_ParseTuple(args, "KK:version_at", &id, &time_ns))
		return NULL;
	memwatch *native = watcher_native((struct watcher *)self);
	if (!native)
		return NULL;
	int error = memwatch_version_at(native, id, time_ns, &seq);
	return error < 0 ? convert_lookup_error(error, memwatch_error()) : PyLong_FromUnsignedLongLong(seq);
}

PyObject *versions_read(PyObject *self, PyObject *args)
{
	const struct memwatch_event *events[EVENTS_MAX];
	unsigned long long id, before = 0;
	Py_ssize_t limit = EVENTS_MAX;
	if (!PyArg_ParseTuple(args, "K|Kn:history", &id, &before, &limit))
		return NULL;
	memwatch *native = watcher_native((struct watcher *)self);
	if (!native)
		return NULL;
	limit = limit < 0 ? 0 : limit > EVENTS_MAX ? EVENTS_MAX : limit;
	int n = memwatch_history_read(native, id, before, events, (size_t)limit);
	return n < 0 ? convert_lookup_error(n, memwatch_error()) : event_list(events, n);
}

/* [(offset, size, Event or None)]; takes over the references. */
static PyObject *blame_list(struct memwatch_blame *blames, int n)
{
	PyObject *list = PyList_New(0);
	for (int i = 0; i < n; i++) {
		PyObject *events = blames[i].event ? event_list(&blames[i].event, 1) : PyList_New(0);
		PyObject *event = events && PyList_GET_SIZE(events) ? PyList_GET_ITEM(events, 0) : Py_None;
		PyObject *run = events && list ? Py_BuildValue("(KKO)", (unsigned long long)blames[i].offset,
							       (unsigned long long)blames[i].size_bytes, event)
					       : NULL;
		if (!run || PyList_Append(list, run) < 0)
			Py_CLEAR(list);
		Py_XDECREF(run);
		Py_XDECREF(events);
	}
	return list;
}

PyObject *versions_blame(PyObject *self, PyObject *args)
{
	enum { RUNS_MAX = 4096 };
	struct watcher *watcher = (struct watcher *)self;
	unsigned long long id, offset, size;
	int n = 0;
	if (!PyArg_ParseTuple(args, "KKK:blame", &id, &offset, &size))
		return NULL;
	struct memwatch_blame *blames = PyMem_Calloc(RUNS_MAX, sizeof *blames);
	memwatch *native = blames ? watcher_enter(watcher) : NULL;
	if (native) {
		Py_BEGIN_ALLOW_THREADS
		n = memwatch_blame(native, id, offset, size, blames, RUNS_MAX);
		watcher_leave(watcher);
		Py_END_ALLOW_THREADS
	}
	PyObject *list = NULL;
	if (native)
		list = n < 0 ? convert_lookup_error(n, memwatch_error())
			     : blame_list(blames, n < RUNS_MAX ? n : RUNS_MAX);
	else if (!blames)
		PyErr_NoMemory();
	PyMem_Free(blames);
	return list;
}
