/*
 * watcher.c -- DESIGN: Watcher, a native watcher and who may be inside it. Python threads may call at any time, but the
 * native watcher may only be closed when nobody is inside. So a call that releases the GIL counts itself in and out,
 * and close() first refuses new calls, waits until the count is zero, then closes what depends on the watcher, then the
 * native watcher. Calls that keep the GIL need no count: close() begins under the GIL. From then on what depends on it
 * is the close's alone, which owns a reference to each: others may let go of them meanwhile.
 *
 * Owns the native watcher and, by way of the exports, the buffers of its regions. In a forked child it owns nothing:
 * the parent's watcher is left alone and every call fails with ECHILD.
 */
#include "convert.h"
#include "options.h"

#include <errno.h>
#include <unistd.h>

bool watcher_is_open(const struct watcher *self)
{
	return self->native && !self->closing && self->pid == getpid();
}

memwatch *watcher_native(struct watcher *self)
{
	if (watcher_is_open(self))
		return self->native;
	if (self->native && self->pid != getpid())
		convert_error(-ECHILD,
			      "this watcher is the parent process's: open a watcher of your own after the fork");
	else
		convert_error(-EPIPE, "the watcher is closed");
	return NULL;
}

static void enter(struct watcher *self)
{
	pthread_mutex_lock(&self->mutex);
	self->n_inside++;
	pthread_mutex_unlock(&self->mutex);
}

memwatch *watcher_enter(struct watcher *self)
{
	memwatch *native = watcher_native(self);
	if (native)
		enter(self);
	return native;
}

void watcher_leave(struct watcher *self)
{
	pthread_mutex_lock(&self->mutex);
	if (--self->n_inside == 0)
		pthread_cond_signal(&self->left);
	pthread_mutex_unlock(&self->mutex);
}

void dependent_link(struct dependent *dependent, PyObject *object, struct watcher *watcher)
{
	if (watcher->closing) /* the close waits for the thread that links it: see claim_dependents */
		Py_INCREF(object);
	Py_INCREF(watcher);
	dependent->object = object;
	dependent->watcher = watcher;
	dependent->next = watcher->dependents;
	watcher->dependents = dependent;
}

/* Whether it was linked: false when the watcher closes it, or has done so. */
static bool unlink_dependent(struct dependent *dependent)
{
	struct watcher *watcher = dependent->watcher;
	struct dependent **link = watcher && !watcher->closing ? &watcher->dependents : NULL;
	while (link && *link && *link != dependent)
		link = &(*link)->next;
	if (!link || !*link)
		return false;
	*link = dependent->next;
	return true;
}

void dependent_close(struct dependent *dependent)
{
	struct watcher *watcher = dependent->watcher;
	if (!unlink_dependent(dependent) || watcher->pid != getpid())
		return;
	void *native = dependent->native;
	dependent->native = NULL;
	enter(watcher);
	Py_BEGIN_ALLOW_THREADS
	dependent->close(native);
	watcher_leave(watcher);
	Py_END_ALLOW_THREADS
}

static void wait_until_left(struct watcher *self)
{
	pthread_mutex_lock(&self->mutex);
	while (self->n_inside)
		pthread_cond_wait(&self->left, &self->mutex);
	pthread_mutex_unlock(&self->mutex);
}

/* Under the GIL: nobody else unlinks or frees a dependent from now on. */
static void claim_dependents(struct watcher *self)
{
	self->closing = true;
	for (struct dependent *each = self->dependents; each; each = each->next)
		Py_INCREF(each->object);
}

static void release_dependents(struct watcher *self)
{
	while (self->dependents) {
		struct dependent *first = self->dependents;
		self->dependents = first->next;
		first->native = NULL;
		Py_DECREF(first->object);
	}
}

/* Without the GIL. */
static void close_native(struct watcher *self)
{
	wait_until_left(self);
	for (struct dependent *each = self->dependents; each; each = each->next)
		each->close(each->native);
	memwatch_close(self->native);
}

static void watcher_end(struct watcher *self)
{
	if (!watcher_is_open(self))
		return;
	claim_dependents(self);
	Py_BEGIN_ALLOW_THREADS
	close_native(self);
	Py_END_ALLOW_THREADS
	self->native = NULL;
	release_dependents(self);
	PyDict_Clear(self->exports);
}

#define AT(member) offsetof(struct memwatch_options, member)

static const struct option options_table[] = {
	{ "backend", OPTION_TEXT, AT(backend) },
	{ "window_ms", OPTION_U32, AT(window_ms) },
	{ "ring_capacity", OPTION_U32, AT(ring_capacity) },
	{ "attribution_budget", OPTION_DOUBLE, AT(attribution_budget) },
	{ "poll_budget", OPTION_DOUBLE, AT(poll_budget) },
	{ "stack_depth", OPTION_U32, AT(stack_depth) },
	{ "inline_threshold", OPTION_U32, AT(inline_threshold) },
	{ "preview_size", OPTION_U32, AT(preview_size) },
	{ "event_capacity", OPTION_U32, AT(event_capacity) },
	{ "event_budget", OPTION_U64, AT(event_budget) },
	{ "history_budget", OPTION_U64, AT(history_budget) },
	{ "patches", OPTION_BOOL, AT(patches) },
	{ "follows_forks", OPTION_BOOL, AT(follows_forks) },
	{ NULL, OPTION_BOOL, 0 },
};

static int parse_options(PyObject *args, PyObject *kwargs, struct memwatch_options *options)
{
	memwatch_options_init(options);
	if (!PyArg_ParseTuple(args, ":Watcher"))
		return -1;
	return options_parse(kwargs, "Watcher", options_table, options);
}

static PyObject *watcher_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	struct memwatch_options options;
	int error;
	if (parse_options(args, kwargs, &options) < 0)
		return NULL;
	struct watcher *self = (struct watcher *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	pthread_mutex_init(&self->mutex, NULL);
	pthread_cond_init(&self->left, NULL);
	self->pid = getpid();
	self->exports = PyDict_New();
	Py_BEGIN_ALLOW_THREADS
	error = self->exports ? memwatch_open(&options, &self->native) : 0;
	Py_END_ALLOW_THREADS
	if (error < 0)
		convert_error(error, memwatch_error());
	if (!self->native) {
		Py_DECREF(self);
		return NULL;
	}
	self->epoch = memwatch_epoch(self->native);
	return (PyObject *)self;
}

static void watcher_dealloc(struct watcher *self)
{
	watcher_end(self);
	Py_CLEAR(self->exports);
	pthread_cond_destroy(&self->left);
	pthread_mutex_destroy(&self->mutex);
	Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *watcher_close(PyObject *self, PyObject *Py_UNUSED(unused))
{
	watcher_end((struct watcher *)self);
	Py_RETURN_NONE;
}

static PyObject *watcher_flush(PyObject *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "timeout", NULL };
	struct watcher *watcher = (struct watcher *)self;
	PyObject *timeout = NULL;
	int result, timeout_ms = 5000;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:flush", names, &timeout))
		return NULL;
	if (timeout && timeout != Py_None && (timeout_ms = convert_timeout(timeout)) < -1)
		return NULL;
	memwatch *native = watcher_enter(watcher);
	if (!native)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	result = memwatch_flush(native, timeout_ms);
	watcher_leave(watcher);
	Py_END_ALLOW_THREADS
	if (result < 0 && result != -ETIMEDOUT)
		return convert_error(result, memwatch_error());
	return PyBool_FromLong(result == 0);
}

static PyObject *watcher_events_read(PyObject *self, PyObject *args, PyObject *kwargs)
{
	enum { LIMIT_MAX = 4096 };
	static char *names[] = { "since", "limit", NULL };
	const struct memwatch_event *events[LIMIT_MAX];
	struct memwatch_cursor cursor;
	unsigned long long since;
	Py_ssize_t limit = 256;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "K|n:events_read", names, &since, &limit))
		return NULL;
	memwatch *native = watcher_native((struct watcher *)self);
	if (!native)
		return NULL;
	limit = limit < 0 ? 0 : limit > LIMIT_MAX ? LIMIT_MAX : limit;
	int n = memwatch_events_read(native, since, events, (size_t)limit, &cursor);
	if (n < 0)
		return convert_error(n, memwatch_error());
	PyObject *list = event_list(events, n);
	return list ? Py_BuildValue("N{sKsKsKsK}", list, "oldest", (unsigned long long)cursor.oldest, "newest",
				    (unsigned long long)cursor.newest, "missed", (unsigned long long)cursor.missed,
				    "next", (unsigned long long)cursor.next)
		    : NULL;
}

static PyObject *watcher_get_epoch(PyObject *self, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLongLong(((struct watcher *)self)->epoch);
}

static PyObject *watcher_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(!watcher_is_open((struct watcher *)self));
}

static PyGetSetDef watcher_getset[] = {
	{ "epoch", watcher_get_epoch, NULL, NULL, NULL },
	{ "closed", watcher_get_closed, NULL, NULL, NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

#define KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef watcher_methods[] = {
	{ "region_add", KEYWORDS(region_add), METH_VARARGS | METH_KEYWORDS, NULL },
	{ "region_add_external", KEYWORDS(region_add_external), METH_VARARGS | METH_KEYWORDS, NULL },
	{ "region_remove", region_remove, METH_O, NULL },
	{ "region_find", region_find, METH_O, NULL },
	{ "region_info", region_info, METH_O, NULL },
	{ "region_list", region_list, METH_NOARGS, NULL },
	{ "region_read", region_read, METH_O, NULL },
	{ "flush", KEYWORDS(watcher_flush), METH_VARARGS | METH_KEYWORDS, NULL },
	{ "events_read", KEYWORDS(watcher_events_read), METH_VARARGS | METH_KEYWORDS, NULL },
	{ "post", KEYWORDS(post_append), METH_VARARGS | METH_KEYWORDS, NULL },
	{ "number_set", post_number_set, METH_VARARGS, NULL },
	{ "load", versions_load, METH_VARARGS, NULL },
	{ "version", versions_version, METH_VARARGS, NULL },
	{ "version_at", versions_version_at, METH_VARARGS, NULL },
	{ "history", versions_read, METH_VARARGS, NULL },
	{ "blame", versions_blame, METH_VARARGS, NULL },
	{ "stats", stats_dict, METH_NOARGS, NULL },
	{ "backends", stats_backends, METH_NOARGS, NULL },
	{ "close", watcher_close, METH_NOARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

PyTypeObject watcher_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "memwatch._core.Watcher",
	.tp_basicsize = sizeof(struct watcher),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = watcher_new,
	.tp_dealloc = (destructor)watcher_dealloc,
	.tp_methods = watcher_methods,
	.tp_getset = watcher_getset,
};
