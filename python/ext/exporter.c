/*
 * exporter.c -- DESIGN: memwatch._core_exporter, a module of its own because of the libraries that it needs: Exporter,
 * a native exporter that serves one watcher on a thread of its own. It is closed before its watcher, by the watcher if
 * nobody did earlier. In a forked child it is left alone.
 */
#include "api.h"
#include "convert.h"
#include "options.h"

#include <memwatch/exporter.h>
#include <unistd.h>

struct exporter {
	PyObject_HEAD struct dependent dependent;
	PyObject *token, *discovery_file;
	uint16_t port;
};

static void close_native(void *native)
{
	memwatch_exporter_close(native);
}

#define AT(member) offsetof(struct memwatch_exporter_options, member)

static const struct option options_table[] = {
	{ "host", OPTION_TEXT, AT(host) },
	{ "port", OPTION_U16, AT(port) },
	{ "unix_socket", OPTION_TEXT, AT(unix_socket) },
	{ "token", OPTION_TEXT, AT(token) },
	{ "metrics_need_token", OPTION_BOOL, AT(metrics_need_token) },
	{ "metrics_open", OPTION_BOOL, AT(metrics_open) },
	{ "metrics_users", OPTION_TEXT, AT(metrics_users) },
	{ "tls_cert_file", OPTION_TEXT, AT(tls_cert_file) },
	{ "tls_key_file", OPTION_TEXT, AT(tls_key_file) },
	{ "insecure", OPTION_BOOL, AT(insecure) },
	{ "connection_limit", OPTION_U32, AT(connection_limit) },
	{ "feed_limit", OPTION_U32, AT(feed_limit) },
	{ "variable_limit", OPTION_U32, AT(variable_limit) },
	{ "heartbeat_ms", OPTION_U32, AT(heartbeat_ms) },
	{ "allowed_host", OPTION_TEXT, AT(allowed_host) },
	{ "runtime_dir", OPTION_TEXT, AT(runtime_dir) },
	{ "service", OPTION_TEXT, AT(service) },
	{ "worker", OPTION_TEXT, AT(worker) },
	{ "labels", OPTION_TEXT, AT(labels) },
	{ "port_exact", OPTION_BOOL, AT(port_exact) },
	{ NULL, OPTION_BOOL, 0 },
};

static int parse_options(PyObject *args, PyObject *kwargs, struct watcher **ret_watcher,
			 struct memwatch_exporter_options *options)
{
	memwatch_exporter_options_init(options);
	if (!PyArg_ParseTuple(args, "O!:Exporter", part_watcher_type(), ret_watcher))
		return -1;
	return options_parse(kwargs, "Exporter", options_table, options);
}

/* The native exporter, opened without the GIL; NULL with an exception. */
static memwatch_exporter *open_native(struct watcher *watcher, const struct memwatch_exporter_options *options)
{
	memwatch_exporter *exporter = NULL;
	int error;
	memwatch *native = watcher_enter(watcher);
	if (!native)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	error = memwatch_exporter_open(native, options, &exporter);
	if (error < 0)
		watcher_leave(watcher);
	Py_END_ALLOW_THREADS
	if (error < 0)
		convert_error(error, memwatch_exporter_error());
	return error < 0 ? NULL : exporter;
}

static PyObject *exporter_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	struct memwatch_exporter_options options;
	struct watcher *watcher;
	if (parse_options(args, kwargs, &watcher, &options) < 0)
		return NULL;
	struct exporter *self = (struct exporter *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	memwatch_exporter *native = open_native(watcher, &options);
	if (!native) {
		Py_DECREF(self);
		return NULL;
	}
	self->dependent.native = native;
	self->dependent.close = close_native;
	dependent_link(&self->dependent, (PyObject *)self, watcher);
	self->token = convert_text(memwatch_exporter_token(native));
	self->discovery_file = convert_text(memwatch_exporter_discovery_file(native));
	self->port = memwatch_exporter_port(native);
	watcher_leave(watcher); /* only now: a close that waits for us closes the exporter too */
	if (!self->token || !self->discovery_file) {
		Py_DECREF(self);
		return NULL;
	}
	return (PyObject *)self;
}

static PyObject *exporter_close(PyObject *object, PyObject *Py_UNUSED(unused))
{
	struct exporter *self = (struct exporter *)object;
	dependent_close(&self->dependent);
	Py_RETURN_NONE;
}

static void exporter_dealloc(PyObject *object)
{
	struct exporter *self = (struct exporter *)object;
	Py_DECREF(exporter_close(object, NULL));
	Py_XDECREF(self->dependent.watcher);
	Py_XDECREF(self->token);
	Py_XDECREF(self->discovery_file);
	Py_TYPE(object)->tp_free(object);
}

/* A new one each time: it holds a code that is good once. */
static PyObject *get_url(PyObject *object, void *Py_UNUSED(closure))
{
	memwatch_exporter *native = ((struct exporter *)object)->dependent.native;
	return convert_text(native ? memwatch_exporter_url(native) : "");
}

static PyObject *get_token(PyObject *object, void *Py_UNUSED(closure))
{
	PyObject *token = ((struct exporter *)object)->token;
	Py_INCREF(token);
	return token;
}

static PyObject *get_discovery_file(PyObject *object, void *Py_UNUSED(closure))
{
	PyObject *file = ((struct exporter *)object)->discovery_file;
	Py_INCREF(file);
	return file;
}

static PyObject *get_port(PyObject *object, void *Py_UNUSED(closure))
{
	return PyLong_FromLong(((struct exporter *)object)->port);
}

static PyGetSetDef exporter_getset[] = {
	{ "url", get_url, NULL, NULL, NULL },
	{ "token", get_token, NULL, NULL, NULL },
	{ "discovery_file", get_discovery_file, NULL, NULL, NULL },
	{ "port", get_port, NULL, NULL, NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyMethodDef exporter_methods[] = {
	{ "close", exporter_close, METH_NOARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyTypeObject exporter_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "memwatch._core_exporter.Exporter",
	.tp_basicsize = sizeof(struct exporter),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = exporter_new,
	.tp_dealloc = exporter_dealloc,
	.tp_methods = exporter_methods,
	.tp_getset = exporter_getset,
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT,
	.m_name = "memwatch._core_exporter",
	.m_size = -1,
};

PyMODINIT_FUNC PyInit__core_exporter(void);

PyMODINIT_FUNC PyInit__core_exporter(void)
{
	PyObject *module = part_init() < 0 ? NULL : PyModule_Create(&module_def);
	if (module && part_add_type(module, "Exporter", &exporter_type) < 0)
		Py_CLEAR(module);
	return module;
}
