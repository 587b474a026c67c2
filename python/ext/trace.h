/*
 * trace.h -- what the trace adapter's engines ask after each line or instruction that can change a watched name. All of it
 * needs the GIL and runs no code of the user.
 */
#ifndef MEMWATCH_TRACE_H
#define MEMWATCH_TRACE_H

#include "core.h"

#include <frameobject.h>

/* --- glance.c --- */

extern PyTypeObject glance_type;

/* Whether the name certainly holds what it held, as seen from the frame that runs. Leaves no exception. */
bool glance_is_unchanged(PyObject *glance, PyFrameObject *frame);

/* --- spot.c --- */

extern PyTypeObject spot_type;
/* Before the functions below. */
int spot_init(void);

/* line_step(lines, spot=None, idle=None, on_return=None): a frame's trace function. */
PyObject *spot_line_step(PyObject *module, PyObject *args);
PyObject *spot_is_line_step(PyObject *module, PyObject *object);
/* instruction_callback(table, disable): a function for sys.monitoring's INSTRUCTION events. */
PyObject *spot_instruction_callback(PyObject *module, PyObject *args);

#endif
