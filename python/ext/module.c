/*
 * module.c -- DESIGN: memwatch._core, the typed surface of libmemwatch for the package beside it (see _core.pyi). Holds
 * no logic of its own. State is static: there is one engine in a process, so sub-interpreters are refused (single-phase
 * initialisation).
 */
#include "cpython.h" /* first: what is Python's own */

#include "api.h"
#include "convert.h"
#include "trace.h"

#include <memwatch/reader.h>

#include <signal.h>

static PyObject *intern(PyObject *Py_UNUSED(module), PyObject *args)
{
	const char *file, *function;
	Py_ssize_t file_bytes, function_bytes;
	unsigned caller = 0;
	int line;
	if (!PyArg_ParseTuple(args, "s#s#i|I:intern", &file, &file_bytes, &function, &function_bytes, &line, &caller))
		return NULL;
	return PyLong_FromUnsignedLong(
		memwatch_location_intern(file, (size_t)file_bytes, function, (size_t)function_bytes, line, caller));
}

/* Hands an exception to sys.unraisablehook; Python code has no other way to. */
static PyObject *unraisable(PyObject *Py_UNUSED(module), PyObject *args)
{
	PyObject *error, *culprit;
	if (!PyArg_ParseTuple(args, "OO:unraisable", &error, &culprit))
		return NULL;
	if (!PyExceptionInstance_Check(error))
		return PyErr_Format(PyExc_TypeError, "unraisable() takes an exception");
	Py_INCREF(Py_TYPE(error));
	Py_INCREF(error);
	PyErr_Restore((PyObject *)Py_TYPE(error), error, PyException_GetTraceback(error));
	PyErr_WriteUnraisable(culprit);
	Py_RETURN_NONE;
}

static PyObject *threads_stop(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
	Py_BEGIN_ALLOW_THREADS
	memwatch_threads_stop();
	Py_END_ALLOW_THREADS
	Py_RETURN_NONE;
}

static PyObject *threads_start(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
	int error;
	Py_BEGIN_ALLOW_THREADS
	error = memwatch_threads_start();
	Py_END_ALLOW_THREADS
	return error < 0 ? convert_error(error, "memwatch's thread could not be started again") : Py_NewRef(Py_None);
}

/* From any thread; signal.signal() refuses all but the main one. */
static PyObject *signal_default(PyObject *Py_UNUSED(module), PyObject *number)
{
	int signum = (int)PyLong_AsLong(number);
	if (signum == -1 && PyErr_Occurred())
		return NULL;
	return signal(signum, SIG_DFL) == SIG_ERR ? PyErr_SetFromErrno(PyExc_OSError) : Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
	{ "threads_stop", threads_stop, METH_NOARGS, NULL },
	{ "threads_start", threads_start, METH_NOARGS, NULL },
	{ "signal_default", signal_default, METH_O, NULL },
	{ "unraisable", unraisable, METH_VARARGS, NULL },
	{ "intern", intern, METH_VARARGS, NULL },
	{ "probe", stats_probe, METH_NOARGS, NULL },
	{ "own_set", frames_own_set, METH_VARARGS, NULL },
	{ "frame_slot", trace_frame_slot, METH_VARARGS, NULL },
	{ "frame_has_ended", trace_frame_has_ended, METH_O, NULL },
	{ "guarded", trace_call_guarded, METH_O, NULL },
	{ "gate", trace_gate, METH_VARARGS, NULL },
	{ "call_step", trace_spot_call_step, METH_VARARGS, NULL },
	{ "line_step", trace_spot_line_step, METH_VARARGS, NULL },
	{ "is_line_step", trace_spot_is_line_step, METH_O, NULL },
	{ "instruction_callback", trace_spot_instruction_callback, METH_VARARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT,
	.m_name = "memwatch._core",
	.m_size = -1,
	.m_methods = methods,
};

static int add_type(PyObject *module, const char *name, PyTypeObject *type)
{
	if (PyType_Ready(type) < 0)
		return -1;
	Py_INCREF(type);
	if (PyModule_AddObject(module, name, (PyObject *)type) == 0)
		return 0;
	Py_DECREF(type);
	return -1;
}

static int add_bool(PyObject *module, const char *name, bool value)
{
	PyObject *object = PyBool_FromLong(value);
	if (PyModule_AddObject(module, name, object) == 0)
		return 0;
	Py_DECREF(object);
	return -1;
}

static int add_api(PyObject *module)
{
	PyObject *capsule = api_capsule();
	if (!capsule || PyModule_AddObject(module, "_api", capsule) == 0)
		return capsule ? 0 : -1;
	Py_DECREF(capsule);
	return -1;
}

static int add_trace(PyObject *module)
{
	if (trace_spot_init() < 0 || add_type(module, "Glance", &trace_glance_type) < 0)
		return -1;
	return add_type(module, "Spot", &trace_spot_type);
}

static int fill(PyObject *module)
{
	if (convert_init() < 0 || PyType_Ready(&export_type) < 0 || add_type(module, "Watcher", &watcher_type) < 0 ||
	    add_type(module, "Sink", &sink_type) < 0 || add_type(module, "Event", &event_type) < 0)
		return -1;
	if (add_trace(module) < 0 || add_api(module) < 0 || add_bool(module, "NATIVE", true) < 0 ||
	    add_bool(module, "FRAMES", cpython_layout_check()) < 0 ||
	    PyModule_AddStringConstant(module, "FRAMES_NOTE", cpython_layout_note) < 0 ||
	    PyModule_AddStringConstant(module, "VERSION", memwatch_version()) < 0 ||
	    PyModule_AddIntConstant(module, "STACK_MAX", MEMWATCH_STACK_MAX) < 0)
		return -1;
	return 0;
}

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void)
{
	PyObject *module = PyModule_Create(&module_def);
	if (!module)
		return NULL;
	if (fill(module) < 0) {
		Py_DECREF(module);
		return NULL;
	}
	frames_install();
	return module;
}
