/*
 * region.c -- DESIGN: regions over Python buffers. A region holds its buffer's export (an Export object in the
 * watcher's dictionary) from before the native region exists until after it is removed, so the memory cannot move or
 * vanish while the worker reads it; Python itself refuses a resize meanwhile. Runs on the caller's thread; adding and
 * removing wait for a pass of the worker and release the GIL.
 */
#include "convert.h"

#include <errno.h>
#include <string.h>

struct shared_view {
	PyObject_HEAD Py_buffer view;
};

static void export_dealloc(struct shared_view *self)
{
	PyBuffer_Release(&self->view);
	Py_TYPE(self)->tp_free((PyObject *)self);
}

PyTypeObject export_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "memwatch._core.Export",
	.tp_basicsize = sizeof(struct shared_view),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_dealloc = (destructor)export_dealloc,
};

static int refuse_buffer(PyObject *object, const char *sentence)
{
	PyErr_Format(PyExc_ValueError, sentence, Py_TYPE(object)->tp_name);
	return -1;
}

/* Takes the export, with its format where the exporter can name one (NumPy cannot for dates). */
static int take_view(PyObject *object, Py_buffer *view)
{
	if (!PyObject_CheckBuffer(object)) {
		PyErr_Format(PyExc_TypeError,
			     "%s has no buffer: watch bytes, bytearray, memoryview, array.array, mmap, ctypes or NumPy "
			     "objects, and names of other objects with watch_name, watch_attr or watch_item",
			     Py_TYPE(object)->tp_name);
		return -1;
	}
	if (PyObject_GetBuffer(object, view, PyBUF_FULL_RO) == 0)
		return 0;
	if (!PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_BufferError))
		return -1;
	PyObject *type, *value, *traceback;
	PyErr_Fetch(&type, &value, &traceback);
	if (PyObject_GetBuffer(object, view, PyBUF_STRIDES) < 0) {
		PyErr_Clear();
		PyErr_Restore(type, value, traceback); /* the first reason is the better one */
		return -1;
	}
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(traceback);
	return 0;
}

static struct shared_view *export_new(PyObject *object)
{
	struct shared_view *self = (struct shared_view *)export_type.tp_alloc(&export_type, 0);
	if (!self)
		return NULL;
	int result = take_view(object, &self->view);
	if (result == 0 && self->view.len == 0)
		result = refuse_buffer(object, "this %s is empty: there are no bytes to watch");
	if (result == 0 && !PyBuffer_IsContiguous(&self->view, 'A'))
		result = refuse_buffer(object,
				       "this %s is not contiguous (a strided view): watch the array that it is a view "
				       "of, or a contiguous slice of it");
	if (result < 0)
		Py_CLEAR(self);
	return self;
}

static bool is_plain_bytes(const Py_buffer *view, PyObject *object)
{
	return !view->format || (strcmp(view->format, "B") == 0 &&
				 (PyBytes_Check(object) || PyByteArray_Check(object) || PyMemoryView_Check(object)));
}

/*
 * The element's format (a better one than the buffer's may have been given), size and shape, as far as the native core
 * can hold them.
 */
static void describe(const Py_buffer *view, PyObject *object, struct memwatch_region_options *options)
{
	if (!options->format)
		options->format = is_plain_bytes(view, object) ? NULL : view->format;
	options->item_bytes = view->itemsize > 0 ? (size_t)view->itemsize : 1;
	if (view->ndim > MEMWATCH_DIMS_MAX || (view->ndim > 0 && !view->shape))
		return;
	options->n_dims = (uint32_t)view->ndim;
	options->shape = view->ndim ? (const size_t *)view->shape : NULL; /* Py_ssize_t, never negative */
	options->fortran_order = view->ndim > 1 && !PyBuffer_IsContiguous(view, 'C');
}

/* Adds without the GIL. Returns the id as a Python int. */
static PyObject *add_native(struct watcher *watcher, void *address, size_t size_bytes,
			    const struct memwatch_region_options *options, uint64_t *ret_id)
{
	int error;
	memwatch *native = watcher_enter(watcher);
	if (!native)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	error = memwatch_region_add(native, address, size_bytes, options, ret_id);
	watcher_leave(watcher);
	Py_END_ALLOW_THREADS
	return error < 0 ? convert_error(error, memwatch_error()) : PyLong_FromUnsignedLongLong(*ret_id);
}

/* None or "changed", "any_nan", ("gt", 10), ("outside", 0, 1): the condition's name and up to two numbers. */
static int parse_when(PyObject *when, struct memwatch_region_options *options)
{
	static const struct {
		const char *name;
		enum memwatch_when when;
		int n_numbers;
	} conditions[] = {
		{ "changed", MEMWATCH_WHEN_CHANGED, 0 },
		{ "any_nan", MEMWATCH_WHEN_ANY_NAN, 0 },
		{ "gt", MEMWATCH_WHEN_GT, 1 },
		{ "ge", MEMWATCH_WHEN_GE, 1 },
		{ "lt", MEMWATCH_WHEN_LT, 1 },
		{ "le", MEMWATCH_WHEN_LE, 1 },
		{ "eq", MEMWATCH_WHEN_EQ, 1 },
		{ "ne", MEMWATCH_WHEN_NE, 1 },
		{ "outside", MEMWATCH_WHEN_OUTSIDE, 2 },
		{ "inside", MEMWATCH_WHEN_INSIDE, 2 },
		{ "delta_gt", MEMWATCH_WHEN_DELTA_GT, 1 },
	};
	const char *name;
	if (!when || when == Py_None)
		return 0;
	PyObject *tuple = PyTuple_Check(when) ? Py_BuildValue("O", when) : PyTuple_Pack(1, when);
	int parsed = tuple && PyArg_ParseTuple(tuple, "s|dd", &name, &options->low, &options->high);
	int n_numbers = parsed ? (int)PyTuple_GET_SIZE(tuple) - 1 : 0;
	for (size_t i = 0; parsed && i < sizeof conditions / sizeof *conditions; i++)
		if (strcmp(name, conditions[i].name) == 0 && n_numbers == conditions[i].n_numbers) {
			options->when = conditions[i].when;
			Py_DECREF(tuple);
			return 0;
		}
	PyErr_Clear();
	PyErr_Format(PyExc_ValueError,
		     "when=%R: a condition is a function of the event, \"changed\", \"any_nan\", (\"gt\", x) "
		     "and so ge, lt, le, "
		     "eq, ne, delta_gt, or (\"outside\", low, high) and so inside",
		     when);
	Py_XDECREF(tuple);
	return -1;
}

static int parse_region(PyObject *args, PyObject *kwargs, PyObject **ret_object,
			struct memwatch_region_options *options)
{
	static char *names[] = { "buffer",         "name",   "values",  "metric", "pinned",  "when", "max_rate",
				 "history_budget", "hashed", "precise", "format", "backend", NULL };
	const char *values = "auto";
	PyObject *when = NULL, *max_rate = NULL, *history = NULL;
	int pinned = 0, hashed = 0, precise = MEMWATCH_PRECISE_AUTO;
	memwatch_region_options_init(options);
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|z$sppOOOpizz:region_add", names, ret_object, &options->name,
					 &values, &options->metric, &pinned, &when, &max_rate, &history, &hashed,
					 &precise, &options->format, &options->backend) ||
	    convert_values(values, &options->values) < 0 || parse_when(when, options) < 0 ||
	    convert_double(max_rate, &options->max_rate) < 0 ||
	    convert_u64(history, "history_budget", &options->history_budget) < 0)
		return -1;
	options->precise = (enum memwatch_precise)precise;
	options->flags = (pinned ? MEMWATCH_REGION_PINNED : 0) | (hashed ? MEMWATCH_REGION_HASHED : 0);
	return 0;
}

PyObject *region_add(PyObject *self, PyObject *args, PyObject *kwargs)
{
	struct watcher *watcher = (struct watcher *)self;
	struct memwatch_region_options options;
	PyObject *object;
	uint64_t id;
	if (parse_region(args, kwargs, &object, &options) < 0 || !watcher_native(watcher))
		return NULL;
	struct shared_view *shared_view = export_new(object);
	if (!shared_view)
		return NULL;
	describe(&shared_view->view, object, &options);
	PyObject *number = add_native(watcher, shared_view->view.buf, (size_t)shared_view->view.len, &options, &id);
	if (number && PyDict_SetItem(watcher->exports, number, (PyObject *)shared_view) < 0) {
		memwatch_region_remove(watcher->native, id);
		Py_CLEAR(number);
	}
	Py_DECREF(shared_view);
	return number;
}

PyObject *region_add_external(PyObject *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "name", "values", NULL };
	struct memwatch_region_options options;
	const char *values = "auto";
	uint64_t id;
	memwatch_region_options_init(&options);
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|z$s:region_add_external", names, &options.name, &values) ||
	    convert_values(values, &options.values) < 0)
		return NULL;
	options.flags = MEMWATCH_REGION_EXTERNAL;
	return add_native((struct watcher *)self, NULL, 0, &options, &id);
}

PyObject *region_remove(PyObject *self, PyObject *arg)
{
	struct watcher *watcher = (struct watcher *)self;
	unsigned long long id = PyLong_AsUnsignedLongLong(arg);
	int error;
	if (PyErr_Occurred())
		return NULL;
	memwatch *native = watcher_enter(watcher);
	if (!native)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	error = memwatch_region_remove(native, id);
	watcher_leave(watcher);
	Py_END_ALLOW_THREADS
	if (error < 0)
		return convert_lookup_error(error, memwatch_error());
	if (PyDict_DelItem(watcher->exports, arg) < 0)
		PyErr_Clear(); /* an external region has no export */
	Py_RETURN_NONE;
}

PyObject *region_find(PyObject *self, PyObject *arg)
{
	const char *name = PyUnicode_Check(arg) ? PyUnicode_AsUTF8(arg) : NULL;
	uint64_t id;
	if (!name)
		return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "a region's name is a str");
	memwatch *native = watcher_native((struct watcher *)self);
	if (!native)
		return NULL;
	int error = memwatch_region_find(native, name, &id);
	return error < 0 ? convert_lookup_error(error, memwatch_error()) : PyLong_FromUnsignedLongLong(id);
}

PyObject *region_read(PyObject *self, PyObject *arg)
{
	struct watcher *watcher = (struct watcher *)self;
	struct memwatch_region_info info;
	unsigned long long id = PyLong_AsUnsignedLongLong(arg);
	PyObject *bytes = NULL;
	int64_t n = 0;
	memwatch *native = PyErr_Occurred() ? NULL : watcher_enter(watcher);
	if (!native)
		return NULL;
	int error = memwatch_region_info_get(native, id, &info);
	if (error == 0)
		bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)info.size_bytes);
	if (bytes) {
		Py_BEGIN_ALLOW_THREADS
		n = memwatch_region_read(native, id, PyBytes_AS_STRING(bytes), info.size_bytes);
		Py_END_ALLOW_THREADS
	}
	watcher_leave(watcher);
	if (bytes && n == PyBytes_GET_SIZE(bytes))
		return bytes;
	Py_XDECREF(bytes);
	if (PyErr_Occurred())
		return NULL;
	return convert_lookup_error(error < 0 ? error : n < 0 ? (int)n : -EIO, memwatch_error());
}
