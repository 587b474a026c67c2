/*
 * core.h -- what the files of memwatch._core share.
 *
 * The engine is one for the process, so the module keeps its state in static variables and refuses to be loaded into
 * sub-interpreters. All functions here need the GIL unless their comment says otherwise.
 */
#ifndef MEMWATCH_CORE_H
#define MEMWATCH_CORE_H

#define PY_SSIZE_T_CLEAN
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <Python.h>
#pragma GCC diagnostic pop

#include <memwatch/memwatch.h>
#include <pthread.h>
#include <stdbool.h>

/* --- watcher.c: who may be inside the native watcher, and when it may be closed --- */

/* What must end before the watcher does: an exporter or a recorder. Linked while it is open. */
struct dependent {
	struct dependent *next;
	PyObject *object;            /* that it is a part of */
	struct watcher *watcher;     /* a reference; NULL until it is linked */
	void *native;                /* under the GIL; NULL as soon as somebody closes it */
	void (*close)(void *native); /* called without the GIL, once, when nobody is inside */
};

struct watcher {
	PyObject_HEAD memwatch *native; /* NULL once closed */
	PyObject *exports;              /* region id -> Export, for regions with memory */
	struct dependent *dependents;   /* under the GIL */
	uint64_t epoch;
	pid_t pid;    /* whose watcher it is: a forked child leaves it alone */
	bool closing; /* under the GIL */
	pthread_mutex_t mutex;
	pthread_cond_t left;
	unsigned n_inside; /* threads inside a blocking call, under the mutex */
};

extern PyTypeObject watcher_type;

/* The native watcher, for a call that keeps the GIL; NULL with an exception once it is closed or another process's. */
memwatch *watcher_native(struct watcher *self);

/* Likewise for a call that releases the GIL: the watcher is not closed before `watcher_leave` (which needs no GIL). */
memwatch *watcher_enter(struct watcher *self);
void watcher_leave(struct watcher *self);

/* Whether the watcher can still be asked; no exception. */
bool watcher_is_open(const struct watcher *self);

/* Makes it, a part of the object, the watcher's, with a reference to that. */
void dependent_link(struct dependent *dependent, PyObject *object, struct watcher *watcher);
/* Closes it without the GIL, unless the watcher does so, or this is a forked child of the process whose it is. */
void dependent_close(struct dependent *dependent);

/* --- region.c, region_info.c, versions.c: methods of Watcher --- */

extern PyTypeObject export_type;
PyObject *region_add(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *region_add_external(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *region_remove(PyObject *self, PyObject *arg);
PyObject *region_find(PyObject *self, PyObject *arg);
PyObject *region_info(PyObject *self, PyObject *arg);
PyObject *region_list(PyObject *self, PyObject *unused);
PyObject *region_read(PyObject *self, PyObject *arg);
PyObject *versions_load(PyObject *self, PyObject *args);
PyObject *versions_version(PyObject *self, PyObject *args);
PyObject *versions_version_at(PyObject *self, PyObject *args);
PyObject *versions_read(PyObject *self, PyObject *args);
PyObject *versions_blame(PyObject *self, PyObject *args);

/* --- stats.c --- */

PyObject *stats_dict(PyObject *self, PyObject *unused);
PyObject *stats_backends(PyObject *self, PyObject *unused);
PyObject *stats_probe(PyObject *module, PyObject *unused);

/* --- event.c, post.c --- */

extern PyTypeObject event_type;
/* A list of `n` events; takes over their references, also on failure. */
PyObject *event_list(const struct memwatch_event **events, int n);
PyObject *post_append(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *post_number_set(PyObject *self, PyObject *args);

/* --- sink.c --- */

extern PyTypeObject sink_type;

/* --- frames.c --- */

/* After cpython_layout_check. */
void frames_install(void);
/* own_set(package_dir, threading_file): whose frames are memwatch's own. */
PyObject *frames_own_set(PyObject *module, PyObject *args);

#endif
