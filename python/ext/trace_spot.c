/*
 * trace_spot.c -- DESIGN: what Python calls while names are watched, as far as nothing has changed. A Spot is what is
 * checked at one place of the code: a glance for each watched name, and the function that looks closer, which is called
 * when one of the glances is not certain. Runs on the user's threads, between two of their instructions, and takes no
 * lock.
 *
 * A line step is a frame's trace function under sys.settrace. It checks the spot of the line that has run, if there is
 * one, and answers with the step for the line that begins: which step a frame has is all the state there is, so that
 * frames share them. A thread's trace function looks up its code's first step, and asks Python about code that it does
 * not know. Under sys.monitoring the callback of INSTRUCTION events finds the spot in a table, by the address of the
 * code plus the offset of the instruction.
 *
 * Steps refer to each other through the table of lines: cycles, which the collector finds.
 */
#include "trace.h"

/*
 * What the table has under a number, whose reference is taken over: borrowed, NULL for nothing. That is also the answer
 * at the limit of recursion, where numbers cannot be compared: see trace_call.c.
 */
static PyObject *look_up(PyObject *table, PyObject *number)
{
	PyObject *found = number ? PyDict_GetItemWithError(table, number) : NULL;
	Py_XDECREF(number);
	if (!found)
		PyErr_Clear();
	return found;
}

/* --- spots --- */

struct spot {
	PyObject_HEAD PyObject *glances; /* a tuple */
	PyObject *look_closer;           /* called with the frame */
};

/* Returns 0, or -1 with an exception of what looked closer. */
static int check_spot(PyObject *object, PyFrameObject *frame)
{
	struct spot *self = (struct spot *)object;
	Py_ssize_t n = PyTuple_GET_SIZE(self->glances), i = 0;
	while (i < n && trace_glance_is_unchanged(PyTuple_GET_ITEM(self->glances, i), frame))
		i++;
	if (i == n)
		return 0;
	Py_INCREF(object); /* what looks closer may replace it */
	PyObject *args[] = { (PyObject *)frame }, *answer = trace_call(self->look_closer, args, 1);
	Py_DECREF(object);
	Py_XDECREF(answer);
	return PyErr_Occurred() ? -1 : 0;
}

/* Spot(glances, look_closer) */
static PyObject *spot_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "glances", "look_closer", NULL };
	PyObject *glances, *look_closer;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O:Spot", names, &PyTuple_Type, &glances, &look_closer))
		return NULL;
	for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(glances); i++)
		if (!Py_IS_TYPE(PyTuple_GET_ITEM(glances, i), &trace_glance_type))
			return PyErr_Format(PyExc_TypeError, "Spot() takes a tuple of glances");
	struct spot *self = (struct spot *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->glances = Py_NewRef(glances);
	self->look_closer = Py_NewRef(look_closer);
	return (PyObject *)self;
}

static int spot_traverse(PyObject *object, visitproc visit, void *arg)
{
	Py_VISIT(((struct spot *)object)->glances);
	Py_VISIT(((struct spot *)object)->look_closer);
	return 0;
}

static void spot_dealloc(PyObject *object)
{
	PyObject_GC_UnTrack(object);
	Py_CLEAR(((struct spot *)object)->glances);
	Py_CLEAR(((struct spot *)object)->look_closer);
	Py_TYPE(object)->tp_free(object);
}

PyTypeObject trace_spot_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "memwatch._core.Spot",
	.tp_basicsize = sizeof(struct spot),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_new = spot_new,
	.tp_traverse = spot_traverse,
	.tp_dealloc = spot_dealloc,
};

/* --- sys.settrace --- */

struct line_step {
	PyObject_HEAD vectorcallfunc call;
	PyObject *lines;     /* a dict: the step for a line with something to check */
	PyObject *spot;      /* of the line that runs; NULL: nothing is checked after it */
	PyObject *idle;      /* the step for all other lines; NULL: this one */
	PyObject *on_return; /* called with a frame that returns or yields; NULL: nobody asks */
};

static PyTypeObject line_step_type;

static PyObject *idle_of(struct line_step *self)
{
	return Py_NewRef(self->idle ? self->idle : (PyObject *)self);
}

/* The step for the line that begins. */
static PyObject *step_for(struct line_step *self, long line)
{
	PyObject *step = look_up(self->lines, PyLong_FromLong(line));
	return step ? Py_NewRef(step) : idle_of(self);
}

static PyObject *step_at_return(struct line_step *self, PyObject *frame)
{
	PyObject *answer = self->on_return ? trace_call(self->on_return, &frame, 1) : NULL;
	Py_XDECREF(answer);
	return PyErr_Occurred() ? NULL : idle_of(self);
}

static PyObject *take_step(struct line_step *self, PyObject *frame, PyObject *event)
{
	if (self->spot && check_spot(self->spot, (PyFrameObject *)frame) < 0)
		return NULL;
	switch (PyUnicode_READ_CHAR(event, 0)) {
	case 'l': return step_for(self, PyFrame_GetLineNumber((PyFrameObject *)frame));
	case 'r': return step_at_return(self, frame);
	default:
		/* an exception that may be caught in this very line, which goes on */
		return Py_NewRef((PyObject *)self);
	}
}

/* The trace function: (frame, event, arg). */
static PyObject *line_step_call(PyObject *self, PyObject *const *args, size_t n_args, PyObject *names)
{
	if (PyVectorcall_NARGS(n_args) != 3 || names || !PyFrame_Check(args[0]) || !PyUnicode_Check(args[1]) ||
	    PyUnicode_GET_LENGTH(args[1]) == 0)
		return PyErr_Format(PyExc_TypeError, "a trace function takes a frame, an event and its argument");
	Py_INCREF(self); /* the frame, which has it as its trace function, may be given another meanwhile */
	PyObject *next = take_step((struct line_step *)self, args[0], args[1]);
	Py_DECREF(self);
	return next;
}

static PyObject *new_ref_or_null(PyObject *object)
{
	return object == Py_None ? NULL : Py_NewRef(object);
}

PyObject *trace_spot_line_step(PyObject *Py_UNUSED(module), PyObject *args)
{
	PyObject *lines, *spot = Py_None, *idle = Py_None, *on_return = Py_None;
	if (!PyArg_ParseTuple(args, "O!|OOO:line_step", &PyDict_Type, &lines, &spot, &idle, &on_return))
		return NULL;
	if ((spot != Py_None && !Py_IS_TYPE(spot, &trace_spot_type)) ||
	    (idle != Py_None && !Py_IS_TYPE(idle, &line_step_type)))
		return PyErr_Format(PyExc_TypeError, "line_step() takes a dict, a Spot and a line step");
	struct line_step *self = PyObject_GC_New(struct line_step, &line_step_type);
	if (!self)
		return NULL;
	self->call = line_step_call;
	self->lines = Py_NewRef(lines);
	self->spot = new_ref_or_null(spot);
	self->idle = new_ref_or_null(idle);
	self->on_return = new_ref_or_null(on_return);
	PyObject_GC_Track(self);
	return (PyObject *)self;
}

PyObject *trace_spot_is_line_step(PyObject *Py_UNUSED(module), PyObject *object)
{
	return PyBool_FromLong(Py_IS_TYPE(object, &line_step_type));
}

static int line_step_traverse(PyObject *object, visitproc visit, void *arg)
{
	struct line_step *self = (struct line_step *)object;
	Py_VISIT(self->lines);
	Py_VISIT(self->spot);
	Py_VISIT(self->idle);
	Py_VISIT(self->on_return);
	return 0;
}

/* The dictionary of lines is the collector's too, and is emptied: what is left here leads nowhere. */
static int line_step_clear(PyObject *object)
{
	struct line_step *self = (struct line_step *)object;
	Py_CLEAR(self->spot);
	Py_CLEAR(self->idle);
	Py_CLEAR(self->on_return);
	return 0;
}

static void line_step_dealloc(PyObject *object)
{
	PyObject_GC_UnTrack(object);
	line_step_clear(object);
	Py_CLEAR(((struct line_step *)object)->lines);
	PyObject_GC_Del(object);
}

static PyTypeObject line_step_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "memwatch._core.LineStep",
	.tp_basicsize = sizeof(struct line_step),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
	.tp_vectorcall_offset = offsetof(struct line_step, call),
	.tp_call = PyVectorcall_Call,
	.tp_traverse = line_step_traverse,
	.tp_clear = line_step_clear,
	.tp_dealloc = line_step_dealloc,
};

/* What the caller's line has bound before its call is that line's doing, not the callee's. */
static int check_caller(PyFrameObject *frame)
{
	PyFrameObject *caller = PyFrame_GetBack(frame);
	PyObject *step = caller ? PyObject_GetAttrString((PyObject *)caller, "f_trace") : NULL;
	int error = caller && !step ? -1 : 0;
	if (step && Py_IS_TYPE(step, &line_step_type) && ((struct line_step *)step)->spot)
		error = check_spot(((struct line_step *)step)->spot, caller);
	Py_XDECREF(step);
	Py_XDECREF(caller);
	return error;
}

static PyObject *first_step(PyObject *idle, PyFrameObject *frame)
{
	if (!Py_IS_TYPE(idle, &line_step_type))
		Py_RETURN_NONE;
	if (check_caller(frame) < 0)
		return NULL;
	return step_for((struct line_step *)idle, PyFrame_GetLineNumber(frame));
}

/* A type of its own: Python calls builtin functions only above the limit of recursion. */
struct call_step {
	PyObject_HEAD vectorcallfunc call;
	PyObject *steps;   /* a dict: by the address of the code its idle step, or None */
	PyObject *watches; /* a dict: there are some, or all is over */
	PyObject *slow;    /* the trace function that knows what to do otherwise */
};

/* The idle step of the frame's code, None, or NULL for code that nobody has looked at; borrowed. */
static PyObject *step_of_code(struct call_step *self, PyFrameObject *frame)
{
	PyCodeObject *code = PyFrame_GetCode(frame);
	Py_DECREF(code); /* the frame has it */
	return look_up(self->steps, PyLong_FromVoidPtr(code));
}

/* The trace function of a thread: (frame, event, arg). */
static PyObject *call_step_call(PyObject *object, PyObject *const *args, size_t n_args, PyObject *names)
{
	struct call_step *self = (struct call_step *)object;
	if (PyVectorcall_NARGS(n_args) != 3 || names || !PyFrame_Check(args[0]))
		return PyErr_Format(PyExc_TypeError, "a trace function takes a frame, an event and its argument");
	PyObject *idle = step_of_code(self, (PyFrameObject *)args[0]);
	if (idle && PyDict_GET_SIZE(self->watches) > 0)
		return first_step(idle, (PyFrameObject *)args[0]);
	Py_INCREF(object); /* the slow one may take it from its thread */
	PyObject *answer = trace_call(self->slow, args, 3);
	Py_DECREF(object);
	return answer || PyErr_Occurred() ? answer : Py_NewRef(Py_None);
}

static int call_step_traverse(PyObject *object, visitproc visit, void *arg)
{
	struct call_step *self = (struct call_step *)object;
	Py_VISIT(self->steps);
	Py_VISIT(self->watches);
	Py_VISIT(self->slow);
	return 0;
}

static void call_step_dealloc(PyObject *object)
{
	struct call_step *self = (struct call_step *)object;
	PyObject_GC_UnTrack(object);
	Py_DECREF(self->steps);
	Py_DECREF(self->watches);
	Py_DECREF(self->slow);
	PyObject_GC_Del(object);
}

static PyTypeObject call_step_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "memwatch._core.CallStep",
	.tp_basicsize = sizeof(struct call_step),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
	.tp_vectorcall_offset = offsetof(struct call_step, call),
	.tp_call = PyVectorcall_Call,
	.tp_traverse = call_step_traverse,
	.tp_dealloc = call_step_dealloc,
};

PyObject *trace_spot_call_step(PyObject *Py_UNUSED(module), PyObject *args)
{
	PyObject *steps, *watches, *slow;
	if (!PyArg_ParseTuple(args, "O!O!O:call_step", &PyDict_Type, &steps, &PyDict_Type, &watches, &slow))
		return NULL;
	struct call_step *self = PyObject_GC_New(struct call_step, &call_step_type);
	if (!self)
		return NULL;
	self->call = call_step_call;
	self->steps = Py_NewRef(steps);
	self->watches = Py_NewRef(watches);
	self->slow = Py_NewRef(slow);
	PyObject_GC_Track(self);
	return (PyObject *)self;
}

bool trace_spot_is_call_step(const PyObject *object)
{
	return object && Py_IS_TYPE(object, &call_step_type);
}

int trace_spot_init(void)
{
	return PyType_Ready(&line_step_type) < 0 ? -1 : PyType_Ready(&call_step_type);
}

/* --- sys.monitoring --- */

/* The callback: (code, offset). `pair` is the table and what switches the event off there. */
static PyObject *on_instruction(PyObject *pair, PyObject *const *args, Py_ssize_t n_args)
{
	if (n_args != 2 || !PyLong_Check(args[1]))
		return PyErr_Format(PyExc_TypeError, "an INSTRUCTION event has a code object and an offset");
	PyObject *key = PyLong_FromSize_t((size_t)args[0] + PyLong_AsSize_t(args[1]));
	PyObject *spot = key ? PyDict_GetItemWithError(PyTuple_GET_ITEM(pair, 0), key) : NULL;
	Py_XDECREF(key);
	if (!spot && !PyErr_Occurred())
		return Py_NewRef(PyTuple_GET_ITEM(pair, 1));
	PyErr_Clear(); /* of the limit of recursion: it is a spot, perhaps, for another time */
	PyFrameObject *frame = PyEval_GetFrame();
	if (spot && frame && Py_IS_TYPE(spot, &trace_spot_type) && check_spot(spot, frame) < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyMethodDef instruction_method = {
	"on_instruction",
	(PyCFunction)(void (*)(void))on_instruction,
	METH_FASTCALL,
	NULL,
};

PyObject *trace_spot_instruction_callback(PyObject *Py_UNUSED(module), PyObject *args)
{
	PyObject *table, *disable;
	if (!PyArg_ParseTuple(args, "O!O:instruction_callback", &PyDict_Type, &table, &disable))
		return NULL;
	PyObject *pair = PyTuple_Pack(2, table, disable);
	PyObject *callback = pair ? PyCFunction_New(&instruction_method, pair) : NULL;
	Py_XDECREF(pair);
	return callback;
}
