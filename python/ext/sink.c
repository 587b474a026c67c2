/*
 * sink.c -- DESIGN: Sink, a cursor on a watcher's events. Reading blocks without the GIL on the reader's thread. The
 * native sink outlives the watcher: what was told before the close is read after it, then the native close wakes who
 * waits. What a slow reader misses is counted natively.
 *
 * Others may wait until the reader is through (drain). All of that waiting is here, in C: a lock of Python's can be
 * left taken by a signal handler that raises, these cannot, because no Python runs while they are held. Whoever waits
 * on the main thread looks for signals in between, so that an interrupt is served during a wait that has no end.
 */
#include "convert.h"

#include <memwatch/reader.h>

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SLICE_MS = 100 };

struct sink {
	PyObject_HEAD struct watcher *watcher; /* a reference */
	memwatch_sink *native;                 /* under the GIL; NULL once closed */
	bool reading, abandoned;               /* under the GIL: a read is under way; close it when that is out */
	pthread_mutex_t mutex;                 /* for what follows; only for a moment */
	pthread_cond_t moved;
	uint64_t asked, passed; /* barriers: what was there when they were asked for is handled */
	uint64_t seq;           /* of the last event handled */
	bool ended;             /* the watcher is closed and all is handled, or nobody reads any more */
};

static void init_waiting(struct sink *self)
{
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&self->mutex, NULL);
	pthread_cond_init(&self->moved, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

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
	init_waiting(self);
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

/* --- the account of what is handled --- */

/* Raises what others wait for; never lowers it. */
static void advance(struct sink *self, uint64_t passed, uint64_t seq, bool ended)
{
	pthread_mutex_lock(&self->mutex);
	self->passed = passed > self->passed ? passed : self->passed;
	self->seq = seq > self->seq ? seq : self->seq;
	self->ended |= ended;
	pthread_cond_broadcast(&self->moved);
	pthread_mutex_unlock(&self->mutex);
}

static uint64_t barriers(struct sink *self, uint64_t *ret_passed)
{
	pthread_mutex_lock(&self->mutex);
	uint64_t asked = self->asked;
	*ret_passed = self->passed;
	pthread_mutex_unlock(&self->mutex);
	return asked;
}

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * How long one wait may be: to the deadline (-1: none), but on the main thread, which serves Python's signals, not for
 * long.
 */
static int slice_ms(int64_t deadline)
{
	static const int64_t slice = SLICE_MS;
	bool is_main = syscall(SYS_gettid) == getpid();
	int64_t left = deadline < 0 ? INT32_MAX : deadline - now_ms();
	left = left < 0 ? 0 : left;
	if (is_main)
		return (int)(left < slice ? left : slice);
	return deadline < 0 ? -1 : (int)(left < INT32_MAX ? left : INT32_MAX);
}

static int64_t deadline_of(int timeout_ms)
{
	return timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
}

static bool is_over(int64_t deadline)
{
	return deadline >= 0 && now_ms() >= deadline;
}

/* --- closing --- */

static PyObject *sink_close(PyObject *object, PyObject *Py_UNUSED(unused))
{
	struct sink *self = (struct sink *)object;
	if (self->reading) {
		self->abandoned = true;
		if (is_ours(self))
			memwatch_sink_wake(self->native);
		Py_RETURN_NONE;
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
	struct sink *self = (struct sink *)object;
	Py_DECREF(sink_close(object, NULL));
	Py_XDECREF(self->watcher);
	pthread_cond_destroy(&self->moved);
	pthread_mutex_destroy(&self->mutex);
	Py_TYPE(object)->tp_free(object);
}

/* --- reading --- */

/*
 * As memwatch_sink_read, -EINTR with an exception when a signal's handler raised; a barrier ends it, too. Lets go
 * of the GIL.
 */
static int read_events(struct sink *self, const struct memwatch_event **events, size_t limit, int timeout_ms)
{
	int64_t deadline = deadline_of(timeout_ms);
	for (;;) {
		uint64_t passed, asked = barriers(self, &passed);
		int n, wait_ms = asked > passed ? 0 : slice_ms(deadline);
		Py_BEGIN_ALLOW_THREADS
		n = memwatch_sink_read(self->native, events, limit, wait_ms);
		Py_END_ALLOW_THREADS
		if (n <= 0)
			advance(self, asked, 0, n < 0);
		if (n != 0 || asked > passed || self->abandoned || is_over(deadline))
			return n;
		if (PyErr_CheckSignals() < 0)
			return -EINTR;
	}
}

/* Whether this reader is refused, with an exception, or has nothing to read, without. */
static bool is_refused(struct sink *self)
{
	if (!self->native || self->abandoned)
		return true;
	if (!is_ours(self))
		watcher_native(self->watcher); /* says why not */
	else if (self->reading)
		PyErr_Format(PyExc_ValueError, "another thread is reading this sink");
	return PyErr_Occurred() != NULL;
}

static PyObject *sink_read(PyObject *object, PyObject *args, PyObject *kwargs)
{
	enum { LIMIT_MAX = 1024 };
	static char *names[] = { "limit", "timeout", "into", NULL };
	const struct memwatch_event *events[LIMIT_MAX];
	struct sink *self = (struct sink *)object;
	PyObject *timeout = NULL, *into = NULL;
	Py_ssize_t limit = 256;
	int timeout_ms;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|nO$O:read", names, &limit, &timeout, &into) ||
	    (timeout_ms = convert_timeout(timeout)) < -1)
		return NULL;
	if (is_refused(self))
		return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
	self->reading = true;
	limit = limit < 1 ? 1 : limit > LIMIT_MAX ? LIMIT_MAX : limit;
	int n = read_events(self, events, (size_t)limit, timeout_ms);
	self->reading = false;
	if (self->abandoned)
		Py_DECREF(sink_close(object, NULL));
	if (n < 0)
		return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
	PyObject *list = event_list(events, n);
	PyObject *added = list && into ? PyObject_CallMethod(into, "extend", "O", list) : Py_NewRef(Py_None);
	if (!added)
		Py_CLEAR(list);
	Py_XDECREF(added);
	return list;
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

static PyObject *sink_handled(PyObject *object, PyObject *arg)
{
	unsigned long long seq = PyLong_AsUnsignedLongLong(arg);
	if (PyErr_Occurred())
		return NULL;
	advance((struct sink *)object, 0, seq, false);
	Py_RETURN_NONE;
}

static PyObject *sink_end(PyObject *object, PyObject *Py_UNUSED(unused))
{
	advance((struct sink *)object, 0, 0, true);
	Py_RETURN_NONE;
}

/* --- waiting for the reader --- */

/* The mutex is held. Without a barrier only the end counts. */
static bool is_drained(const struct sink *self, uint64_t barrier, uint64_t seq)
{
	return self->ended || (barrier && (self->passed >= barrier || self->seq >= seq));
}

static bool wait_drained(struct sink *self, uint64_t barrier, uint64_t seq, int wait_ms)
{
	int64_t until = now_ms() + (wait_ms < 0 ? INT32_MAX : wait_ms);
	struct timespec deadline = { until / 1000, until % 1000 * 1000000 };
	int error = 0;
	pthread_mutex_lock(&self->mutex);
	while (!is_drained(self, barrier, seq) && !error)
		error = pthread_cond_timedwait(&self->moved, &self->mutex, &deadline);
	bool drained = is_drained(self, barrier, seq);
	pthread_mutex_unlock(&self->mutex);
	return drained;
}

static uint64_t ask(struct sink *self)
{
	pthread_mutex_lock(&self->mutex);
	uint64_t barrier = ++self->asked;
	pthread_mutex_unlock(&self->mutex);
	memwatch_sink_wake(self->native);
	return barrier;
}

static PyObject *sink_drain(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "seq", "timeout", NULL };
	struct sink *self = (struct sink *)object;
	PyObject *seq_object, *timeout = NULL;
	uint64_t seq = 0;
	int timeout_ms;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:drain", names, &seq_object, &timeout) ||
	    convert_u64(seq_object, "seq", &seq) < 0 || (timeout_ms = convert_timeout(timeout)) < -1)
		return NULL;
	if (!is_ours(self)) /* a forked child's copy of the mutex may be taken for ever */
		Py_RETURN_TRUE;
	int64_t deadline = deadline_of(timeout_ms);
	uint64_t barrier = seq_object == Py_None ? 0 : ask(self);
	for (;;) {
		bool drained;
		int wait_ms = slice_ms(deadline);
		Py_BEGIN_ALLOW_THREADS
		drained = wait_drained(self, barrier, seq, wait_ms);
		Py_END_ALLOW_THREADS
		if (drained || is_over(deadline))
			return PyBool_FromLong(drained);
		if (PyErr_CheckSignals() < 0)
			return NULL;
	}
}

static PyMethodDef sink_methods[] = {
	{ "read", (PyCFunction)(void (*)(void))sink_read, METH_VARARGS | METH_KEYWORDS, NULL },
	{ "report", sink_report, METH_VARARGS, NULL },
	{ "handled", sink_handled, METH_O, NULL },
	{ "end", sink_end, METH_NOARGS, NULL },
	{ "drain", (PyCFunction)(void (*)(void))sink_drain, METH_VARARGS | METH_KEYWORDS, NULL },
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
