/*
 * api.c -- DESIGN: the table of api.h, filled in. Part of memwatch._core; read by the other modules from any thread,
 * never written.
 */
#include "api.h"

static const struct api api = {
	.size_bytes = sizeof api,
	.watcher_type = &watcher_type,
#define FUNCTION(result, name, parameters, arguments) .name = name,
#include "api.inc"
#undef FUNCTION
};

PyObject *api_capsule(void)
{
	return PyCapsule_New((void *)(uintptr_t)&api, API_CAPSULE, NULL);
}
