/*
 * cpython.h -- what differs between the versions of CPython. Every PY_VERSION_HEX of this folder is here, and every
 * look into a struct that is not public: docs/new-python.md says how a version is added.
 *
 * The offsets are those of the headers that this is compiled with. cpython_layout_check compares them with what the
 * interpreter that runs says of itself; until it has, and where they differ, no frame is looked into.
 */
#ifndef MEMWATCH_CPYTHON_H
#define MEMWATCH_CPYTHON_H

#ifndef Py_BUILD_CORE
#define Py_BUILD_CORE 1 /* before the first Python.h */
#endif
#include "core.h"

#define CPYTHON_AT_LEAST(minor) (PY_VERSION_HEX >= 0x03000000 + (minor)*0x10000)

/*
 * Whether frames are known at all: CPython 3.11 to 3.15. Of the builds without GIL those from 3.14 on, when a frame
 * began to say whose copy of the bytecode it runs; of debug builds not those whose stack holds numbers instead of
 * addresses.
 */
#if CPYTHON_AT_LEAST(11) && !CPYTHON_AT_LEAST(16) && !(defined(Py_GIL_DISABLED) && !CPYTHON_AT_LEAST(14)) &&           \
	!defined(Py_STACKREF_DEBUG) && !defined(PYPY_VERSION)
#define CPYTHON_FRAMES_KNOWN 1
#endif

/* Whether a thread's tracing is switched for each evaluation of a frame, so that a gate can stand there: 3.11. */
#if defined(CPYTHON_FRAMES_KNOWN) && !CPYTHON_AT_LEAST(12)
#define CPYTHON_TRACES_BY_FRAME 1
#endif

/* --- cpython.c --- */

/* Under the GIL, once, before the first watcher: false where frames must not be looked into, and why. */
bool cpython_layout_check(void);
/* What it found; and the sentence, "" where all is well. */
extern bool cpython_layout_is_known;
extern char cpython_layout_note[256];

/* --- public functions that came with a version --- */

#if CPYTHON_AT_LEAST(13)
PyAPI_FUNC(int) _PyOS_IsMainThread(void); /* since 3.13 in no public header */
#endif

/* The exception that is raised, normalized, as a new reference; none is raised afterwards. */
static inline PyObject *cpython_exception_take(void)
{
#if CPYTHON_AT_LEAST(12)
	return PyErr_GetRaisedException();
#else
	PyObject *type, *value, *traceback;
	PyErr_Fetch(&type, &value, &traceback);
	PyErr_NormalizeException(&type, &value, &traceback);
	if (traceback)
		PyException_SetTraceback(value, traceback);
	Py_DECREF(type);
	Py_XDECREF(traceback);
	return value;
#endif
}

/* Takes over the exception. */
static inline void cpython_exception_raise(PyObject *exception)
{
#if CPYTHON_AT_LEAST(12)
	PyErr_SetRaisedException(exception);
#else
	PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exception)), exception, PyException_GetTraceback(exception));
#endif
}

/* What a weak reference leads to, as a new reference; NULL when it is gone. */
static inline PyObject *cpython_weakref_get(PyObject *reference)
{
#if CPYTHON_AT_LEAST(13)
	PyObject *object = NULL;
	PyWeakref_GetRef(reference, &object);
	return object;
#else
	PyObject *object = PyWeakref_GET_OBJECT(reference);
	return object == Py_None ? NULL : Py_NewRef(object);
#endif
}

#ifdef CPYTHON_FRAMES_KNOWN

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define object pycore_object /* a type of theirs, from 3.14 on */
#include <internal/pycore_frame.h>
#if CPYTHON_AT_LEAST(14)
#include <internal/pycore_interpframe.h>
#endif
#undef object
#pragma GCC diagnostic pop

typedef struct _PyInterpreterFrame interpreter_frame;

/* --- a thread's stack of frames --- */

/* The innermost frame, as the thread's state has it: it may be none. */
static inline interpreter_frame *cpython_frame_claimed(const PyThreadState *state)
{
#if CPYTHON_AT_LEAST(13)
	return state->current_frame;
#else
	return state->cframe ? state->cframe->current_frame : NULL;
#endif
}

/*
 * What it executes: a code object, or None for an entry frame. From 3.14 on the lowest bits of a reference say whose it
 * is.
 */
static inline void *cpython_frame_executable(const interpreter_frame *frame)
{
#if CPYTHON_AT_LEAST(14)
	return (void *)(frame->f_executable.bits & ~(uintptr_t)3);
#elif CPYTHON_AT_LEAST(13)
	return frame->f_executable;
#else
	return frame->f_code;
#endif
}

/* The instruction that runs; in 3.11 and 3.12 the one before the next. */
static inline _Py_CODEUNIT *cpython_frame_pointer(const interpreter_frame *frame)
{
#if CPYTHON_AT_LEAST(13)
	return frame->instr_ptr;
#else
	return frame->prev_instr;
#endif
}

/*
 * Whether the frame is one that the interpreter makes for itself, which has nothing but a caller: on the C stack where
 * it is entered from C, from 3.15 on also at the bottom of the thread's stack. 3.11 has none.
 */
static inline bool cpython_frame_is_entry(const interpreter_frame *frame)
{
#if CPYTHON_AT_LEAST(14)
	return frame->owner >= FRAME_OWNED_BY_INTERPRETER;
#elif CPYTHON_AT_LEAST(12)
	return frame->owner == FRAME_OWNED_BY_CSTACK;
#else
	return (void)frame, false;
#endif
}

/*
 * The instructions that the frame's own pointer points into; NULL when the frame names none. Without GIL each thread
 * has a copy of its own.
 */
static inline _Py_CODEUNIT *cpython_frame_bytecode(const interpreter_frame *frame, PyCodeObject *code)
{
#ifdef Py_GIL_DISABLED
	const _PyCodeArray *copies = code->co_tlbc;
	return copies && frame->tlbc_index >= 0 && frame->tlbc_index < copies->size
		       ? (_Py_CODEUNIT *)copies->entries[frame->tlbc_index]
		       : NULL;
#else
	(void)frame;
	return _PyCode_CODE(code);
#endif
}

/* How many words a frame of this code takes. */
static inline uint32_t cpython_code_frame_words(const PyCodeObject *code)
{
#if CPYTHON_AT_LEAST(12)
	return (uint32_t)code->co_framesize;
#else
	return (uint32_t)code->co_nlocalsplus + (uint32_t)code->co_stacksize + (uint32_t)FRAME_SPECIALS_SIZE;
#endif
}

/* --- objects that may be none --- */

/*
 * Whether the word where an object counts its references can be that of one which is alive; malloc leaves 0 or an
 * address in a freed one. From 3.14 on the count is half of the word, and the other half is small. Without GIL there is
 * no such word: what else is asked of the object has to do.
 */
static inline bool cpython_object_may_be_alive(PyObject *object)
{
#ifdef Py_GIL_DISABLED
	return object != NULL;
#elif CPYTHON_AT_LEAST(14)
	return object->ob_refcnt > 0 && object->ob_overflow == 0;
#else
	return Py_REFCNT(object) > 0 && (uint64_t)Py_REFCNT(object) <= UINT32_MAX;
#endif
}

/* --- frames that are held --- */

/*
 * What a slot of the frame holds: a local, a cell; borrowed, NULL for nothing. Its frame runs in this thread, or
 * nowhere.
 */
static inline PyObject *cpython_frame_slot(PyFrameObject *frame, Py_ssize_t index)
{
#if CPYTHON_AT_LEAST(14)
	uintptr_t bits = frame->f_frame->localsplus[index].bits;
	bool is_number = (bits & 3) == 3;
	return is_number ? NULL : (PyObject *)(bits & ~(uintptr_t)3);
#else
	return frame->f_frame->localsplus[index];
#endif
}

/* Whether the frame runs no more, nor will: its slots are its object's own. */
static inline bool cpython_frame_has_ended(PyFrameObject *frame)
{
	return frame->f_frame->owner == FRAME_OWNED_BY_FRAME_OBJECT;
}

#endif
#endif
