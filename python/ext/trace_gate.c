/*
 * trace_gate.c -- DESIGN: under sys.settrace an interpreter runs all code of a thread in its slow way, and in
 * that way it holds one more reference to an object whose method is called: ndarray.resize() then refuses, in
 * code that mentions no watched name. So before 3.12 we stand where the interpreter begins a frame (PEP 523),
 * and switch the thread's tracing off for code that concerns nothing, and on for code that does. Such code is
 * asked about once, with the function that the engine gives. What runs is the interpreter's own evaluation;
 * only its switch is turned.
 *
 * The gate opens and closes for frames of threads whose trace function is ours (CallStep) and nobody's else:
 * with another tracer or a profiler everything is as it was. A frame that goes on after a call gets back the
 * state that its own code asks for, since the call may have been what changed it.
 *
 * Runs on the user's threads under the GIL. Owns the tables while the gate is open. An evaluation function that
 * was there before (a debugger's) is called in place of the interpreter's own.
 *
 * Loss: who replaces the evaluation function later, and does not call ours, leaves tracing as it finds it: what
 * changes in code that is not traced then is found by the sweep, without a writer.
 */
#include "cpython.h"

#include "trace.h"

#ifdef CPYTHON_TRACES_BY_FRAME

static PyInterpreterState *gated; /* where the gate is open; NULL: nowhere */
static _PyFrameEvalFunction evaluate;
static PyObject *steps;     /* a dict: by the address of the code its first step, or None */
static PyObject *inspect;   /* called with a code object: puts it into `steps` */
static uint64_t n_openings; /* how often the answers may have changed */

static bool is_gated(const PyThreadState *state)
{
	return gated == state->interp && state->tracing == 0 && !state->c_profilefunc &&
	       trace_spot_is_call_step(state->c_traceobj);
}

/* Asks the engine. Its own code is not traced meanwhile. */
static PyObject *inspect_code(PyThreadState *state, PyObject *code)
{
	PyObject *answer, *asked = Py_NewRef(inspect);
	PyThreadState_EnterTracing(state);
	answer = trace_call(asked, &code, 1);
	PyThreadState_LeaveTracing(state);
	Py_DECREF(asked);
	Py_XDECREF(answer);
	PyErr_Clear();
	PyObject *key = PyLong_FromVoidPtr(code), *step = key && steps ? PyDict_GetItemWithError(steps, key) : NULL;
	Py_XDECREF(key);
	return step;
}

/* Whether this code is traced: unless it is known to concern nothing. */
static bool is_traced(PyThreadState *state, PyObject *code)
{
	PyObject *type, *value, *traceback;
	PyErr_Fetch(&type, &value, &traceback); /* a frame may begin, and end, with an exception */
	PyObject *key = PyLong_FromVoidPtr(code), *step = key ? PyDict_GetItemWithError(steps, key) : NULL;
	Py_XDECREF(key);
	if (!step && !PyErr_Occurred())
		step = inspect_code(state, code);
	PyErr_Restore(type, value, traceback);
	return step != Py_None;
}

static void set_tracing(PyThreadState *state, bool on)
{
	state->cframe->use_tracing = on ? 255 : 0;
}

static PyObject *evaluate_gated(PyThreadState *state, struct _PyInterpreterFrame *frame, int throwing)
{
	uint64_t opening = n_openings;
	bool was_gated = is_gated(state), caller_is_traced = state->cframe->use_tracing;
	if (was_gated)
		set_tracing(state, is_traced(state, (PyObject *)frame->f_code));
	PyObject *result = evaluate(state, frame, throwing);
	if (!is_gated(state))
		return result;
	struct _PyInterpreterFrame *caller = state->cframe->current_frame;
	if (was_gated && opening == n_openings)
		set_tracing(state, caller_is_traced);
	else
		set_tracing(state, !caller || is_traced(state, (PyObject *)caller->f_code));
	return result;
}

/* Frames that run already go on traced: the engine may just have given them trace functions. */
static void trace_running_frames(PyInterpreterState *interpreter)
{
	for (PyThreadState *state = PyInterpreterState_ThreadHead(interpreter); state;
	     state = PyThreadState_Next(state))
		for (_PyCFrame *frames = state->cframe; is_gated(state) && frames; frames = frames->previous)
			frames->use_tracing = 255;
}

static void close_gate(void)
{
	if (gated && _PyInterpreterState_GetEvalFrameFunc(gated) == evaluate_gated)
		_PyInterpreterState_SetEvalFrameFunc(gated, evaluate);
	if (gated)
		trace_running_frames(gated);
	gated = NULL;
	Py_CLEAR(steps);
	Py_CLEAR(inspect);
}

static void open_gate(PyObject *new_steps, PyObject *new_inspect)
{
	PyInterpreterState *interpreter = PyInterpreterState_Get();
	Py_XSETREF(steps, Py_NewRef(new_steps));
	Py_XSETREF(inspect, Py_NewRef(new_inspect));
	gated = interpreter;
	n_openings++;
	_PyFrameEvalFunction current = _PyInterpreterState_GetEvalFrameFunc(interpreter);
	if (current != evaluate_gated) {
		evaluate = current;
		_PyInterpreterState_SetEvalFrameFunc(interpreter, evaluate_gated);
	}
	trace_running_frames(interpreter);
	/* An instruction that has learnt which __getitem__ it calls begins its frame without us: all forget. */
	PyType_Modified(&PyBaseObject_Type);
}

PyObject *trace_gate(PyObject *Py_UNUSED(module), PyObject *args)
{
	PyObject *new_steps, *new_inspect;
	if (!PyArg_ParseTuple(args, "OO:gate", &new_steps, &new_inspect))
		return NULL;
	if (new_steps == Py_None)
		close_gate();
	else if (!PyDict_Check(new_steps))
		return PyErr_Format(PyExc_TypeError, "gate() takes a dict, or None, and a function");
	else
		open_gate(new_steps, new_inspect);
	Py_RETURN_NONE;
}

#else

PyObject *trace_gate(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(args))
{
	Py_RETURN_NONE;
}

#endif
