/*
 * trace_frame.c -- DESIGN: what Python does not say of a frame. A variable that functions share lives in a cell, which
 * no public function of Python gives out while the frame runs; and reading `frame.f_locals`, which before 3.13 is slow,
 * changes the dictionary that the user has from `locals()`. So the frame's slots are read where they are. Runs under
 * the GIL. Where the layout is not known no slot can be read, and the adapter does without: it watches such a name
 * while its frame lives.
 */
#include "cpython.h"

#include "trace.h"

PyObject *trace_frame_local(PyFrameObject *frame, Py_ssize_t index)
{
#ifdef CPYTHON_FRAMES_KNOWN
	return cpython_layout_is_known ? cpython_frame_slot(frame, index) : NULL;
#else
	(void)frame, (void)index;
	return NULL;
#endif
}

static bool has_slot(PyFrameObject *frame, Py_ssize_t index)
{
	PyCodeObject *code = PyFrame_GetCode(frame);
	bool has = index >= 0 && index < code->co_nlocalsplus;
	Py_DECREF(code);
	return has;
}

PyObject *trace_frame_slot(PyObject *Py_UNUSED(module), PyObject *args)
{
	PyFrameObject *frame;
	PyObject *missing;
	Py_ssize_t index;
	if (!PyArg_ParseTuple(args, "O!nO:frame_slot", &PyFrame_Type, &frame, &index, &missing))
		return NULL;
	if (!has_slot(frame, index))
		return PyErr_Format(PyExc_IndexError, "the frame has no slot %zd", index);
	PyObject *found = trace_frame_local(frame, index);
	return Py_NewRef(found ? found : missing);
}

PyObject *trace_frame_has_ended(PyObject *Py_UNUSED(module), PyObject *frame)
{
	if (!PyFrame_Check(frame))
		return PyErr_Format(PyExc_TypeError, "frame_has_ended() takes a frame");
#ifdef CPYTHON_FRAMES_KNOWN
	return PyBool_FromLong(cpython_layout_is_known && cpython_frame_has_ended((PyFrameObject *)frame));
#else
	Py_RETURN_FALSE;
#endif
}
