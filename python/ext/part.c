/*
 * part.c -- DESIGN: the library's functions as the exporter and the recorder call them: each goes through the table
 * that memwatch._core gives out. Part of both modules. The table is found once, under the GIL, at import; the functions
 * are called on any thread, also without the GIL, and own nothing.
 */
#include "api.h"
#include "convert.h"

static const struct api *api;

#define FUNCTION(result, name, parameters, arguments)                                                                  \
	result name parameters                                                                                         \
	{                                                                                                              \
		return api->name arguments;                                                                            \
	}
#include "api.inc"
#undef FUNCTION

PyTypeObject *part_watcher_type(void)
{
	return api->watcher_type;
}

int part_init(void)
{
	PyObject *core = PyImport_ImportModule("memwatch._core"); /* the capsule's name leads to an attribute of it */
	const struct api *found = core ? PyCapsule_Import(API_CAPSULE, 0) : NULL;
	Py_XDECREF(core);
	if (found && found->size_bytes != sizeof *api) {
		PyErr_SetString(PyExc_ImportError, "it was built for another memwatch._core: build memwatch again");
		return -1;
	}
	api = found;
	return found ? convert_init() : -1;
}

int part_add_type(PyObject *module, const char *name, PyTypeObject *type)
{
	return PyType_Ready(type) < 0 ? -1 : PyModule_AddObjectRef(module, name, (PyObject *)type);
}
