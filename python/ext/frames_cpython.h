/*
 * frames_cpython.h -- a CPython frame, by version: 3.11, 3.12, 3.13. Included by frames.c alone, after Python.h with
 * Py_BUILD_CORE. Three questions, each answered without following a pointer that may not be one:
 *   frame_running      the innermost frame of a thread's state, NULL when it runs none
 *   frame_code         its code object; NULL for what has no line: an entry frame of the interpreter, a frame whose first
 *                      instruction has not run yet (its function's arguments are still being bound)
 *   frame_instruction  the index of the instruction that it executes
 *
 * To add a version: read Include/internal/pycore_frame.h of it, and run tests/python/test_where.py with it.
 */
#ifndef MEMWATCH_FRAMES_CPYTHON_H
#define MEMWATCH_FRAMES_CPYTHON_H

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <internal/pycore_frame.h>
#pragma GCC diagnostic pop

static inline PyCodeObject *code_or_null(void *object)
{
	bool aligned = object && ((uintptr_t)object & (sizeof(void *) - 1)) == 0;
	return aligned && Py_TYPE((PyObject *)object) == &PyCode_Type ? object : NULL;
}

#if PY_VERSION_HEX >= 0x030d0000 /* 3.13: the code is an `executable`, the pointer is at the running instruction */

static inline struct _PyInterpreterFrame *frame_running(PyThreadState *state)
{
	return state->current_frame;
}

static inline PyCodeObject *frame_code(struct _PyInterpreterFrame *frame)
{
	if (frame->owner == FRAME_OWNED_BY_CSTACK)
		return NULL;
	PyCodeObject *code = code_or_null(frame->f_executable);
	return code && !_PyFrame_IsIncomplete(frame) ? code : NULL;
}

static inline int frame_instruction(const struct _PyInterpreterFrame *frame, PyCodeObject *code)
{
	return (int)(frame->instr_ptr - _PyCode_CODE(code));
}

#elif PY_VERSION_HEX >= 0x030c0000 /* 3.12: entry frames lie on the C stack */

static inline struct _PyInterpreterFrame *frame_running(PyThreadState *state)
{
	return state->cframe ? state->cframe->current_frame : NULL;
}

static inline PyCodeObject *frame_code(struct _PyInterpreterFrame *frame)
{
	if (frame->owner == FRAME_OWNED_BY_CSTACK)
		return NULL;
	PyCodeObject *code = code_or_null(frame->f_code);
	return code && !_PyFrame_IsIncomplete(frame) ? code : NULL;
}

static inline int frame_instruction(const struct _PyInterpreterFrame *frame, PyCodeObject *code)
{
	return (int)(frame->prev_instr - _PyCode_CODE(code));
}

#else /* 3.11 */

static inline struct _PyInterpreterFrame *frame_running(PyThreadState *state)
{
	return state->cframe ? state->cframe->current_frame : NULL;
}

static inline PyCodeObject *frame_code(struct _PyInterpreterFrame *frame)
{
	PyCodeObject *code = code_or_null(frame->f_code);
	return code && !_PyFrame_IsIncomplete(frame) ? code : NULL;
}

static inline int frame_instruction(const struct _PyInterpreterFrame *frame, PyCodeObject *code)
{
	return (int)(frame->prev_instr - _PyCode_CODE(code));
}

#endif

#endif
