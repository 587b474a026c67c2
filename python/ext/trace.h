/*
 * trace.h -- what the trace adapter's engines ask after each line or instruction that can change a watched name. All of
 * it needs the GIL and runs no code of the user.
 */
#ifndef MEMWATCH_TRACE_H
#define MEMWATCH_TRACE_H

#include "core.h"

#include <frameobject.h>

/* --- trace_frame.c --- */

/* What a slot of the frame holds; borrowed, NULL where that is nothing or cannot be told. */
PyObject *trace_frame_local(PyFrameObject *frame, Py_ssize_t index);
/* frame_slot(frame, index, missing), frame_has_ended(frame): see _core.pyi. */
PyObject *trace_frame_slot(PyObject *module, PyObject *args);
PyObject *trace_frame_has_ended(PyObject *module, PyObject *frame);

/* --- trace_glance.c --- */

extern PyTypeObject trace_glance_type;

/* Whether the name certainly holds what it held, as seen from the frame that runs. Leaves no exception. */
bool trace_glance_is_unchanged(PyObject *glance, PyFrameObject *frame);

/* --- trace_call.c --- */

/* Calls a function of an engine on the user's thread. NULL without an exception: it could not be asked now. */
PyObject *trace_call(PyObject *function, PyObject *const *args, size_t n_args);
/* guarded(function): a function that is called so, and answers None where it could not be. */
PyObject *trace_call_guarded(PyObject *module, PyObject *function);

/* --- trace_spot.c --- */

extern PyTypeObject trace_spot_type;
/* Before the functions below. */
int trace_spot_init(void);

/* line_step(lines, spot=None, idle=None, on_return=None): a frame's trace function. */
PyObject *trace_spot_line_step(PyObject *module, PyObject *args);
PyObject *trace_spot_is_line_step(PyObject *module, PyObject *object);
/* Whether this is a thread's trace function of ours; NULL is none. */
bool trace_spot_is_call_step(const PyObject *object);
/* call_step(steps, watches, slow): a thread's trace function. */
PyObject *trace_spot_call_step(PyObject *module, PyObject *args);
/* instruction_callback(table, disable): a function for sys.monitoring's INSTRUCTION events. */
PyObject *trace_spot_instruction_callback(PyObject *module, PyObject *args);

/* --- trace_gate.c --- */

/* gate(steps, inspect): see _core.pyi. */
PyObject *trace_gate(PyObject *module, PyObject *args);

#endif
