/*
 * api.h -- how the exporter and the recorder, which are extension modules of their own, call the one library that
 * memwatch._core holds: through a table that _core gives out as a capsule. So a missing library of theirs is their loss
 * alone, the engine is one, and no symbol of it can be met by those of another copy in the process.
 */
#ifndef MEMWATCH_API_H
#define MEMWATCH_API_H

#include "core.h"

#include <memwatch/reader.h>

#define API_CAPSULE "memwatch._core._api"

struct api {
	size_t size_bytes; /* of this struct: the modules were built together, or they do not fit */
	PyTypeObject *watcher_type;
#define FUNCTION(result, name, parameters, arguments) result(*name) parameters;
#include "api.inc"
#undef FUNCTION
};

/* --- api.c, in _core --- */

/* A capsule, as a new reference. */
PyObject *api_capsule(void);

/* --- part.c, in the others --- */

/* Once, at import: 0, or -1 with an exception. Before it has succeeded nothing of the library may be called. */
int part_init(void);
/* What the watcher of an exporter or a recorder must be. */
PyTypeObject *part_watcher_type(void);
/* Adds a type to the module. 0, or -1 with an exception. */
int part_add_type(PyObject *module, const char *name, PyTypeObject *type);

#endif
