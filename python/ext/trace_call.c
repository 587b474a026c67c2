/*
 * trace_call.c -- DESIGN: how the engines' Python functions are called on the user's threads, between two of their
 * instructions. What such a function raised would be raised there in the user's code, and with sys.settrace it would
 * end the tracing of the thread. But hardly anything that is raised in it is its own:
 *
 * - An exception of a signal handler (KeyboardInterrupt, a timeout) is raised in whatever Python code the main thread
 *   runs.
 *   Here the function is called once more, and the exception is raised by a pending call, which the main thread makes
 *   between two of its next instructions: in the user's code, as if the signal had come then.
 * - At the limit of recursion, or without memory, nothing can be asked. The user's own next call fails likewise; what
 *   has
 *   changed is found by a later look.
 *
 * Owns a deferred exception until it is raised; one that was not when the interpreter ends is lost with it.
 */
#include "cpython.h"

#include "trace.h"

static int raise_deferred(void *exception)
{
	cpython_exception_raise(exception);
	return -1;
}

PyObject *trace_call(PyObject *function, PyObject *const *args, size_t n_args)
{
	PyObject *answer = PyObject_Vectorcall(function, args, n_args, NULL);
	if (answer)
		return answer;
	if (PyErr_ExceptionMatches(PyExc_RecursionError) || PyErr_ExceptionMatches(PyExc_MemoryError)) {
		PyErr_Clear();
		return NULL;
	}
	if (!_PyOS_IsMainThread())
		return NULL;
	PyObject *exception = cpython_exception_take();
	answer = PyObject_Vectorcall(function, args, n_args, NULL);
	PyErr_Clear();
	if (Py_AddPendingCall(raise_deferred, exception) < 0) {
		Py_CLEAR(answer);
		cpython_exception_raise(exception);
	}
	return answer;
}

static PyObject *call_guarded(PyObject *function, PyObject *const *args, Py_ssize_t n_args)
{
	PyObject *answer = trace_call(function, args, (size_t)n_args);
	return answer || PyErr_Occurred() ? answer : Py_NewRef(Py_None);
}

static PyMethodDef guarded_method = { "guarded", (PyCFunction)(void (*)(void))call_guarded, METH_FASTCALL, NULL };

PyObject *trace_call_guarded(PyObject *Py_UNUSED(module), PyObject *function)
{
	return PyCFunction_New(&guarded_method, function);
}
