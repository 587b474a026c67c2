/*
 * trace_glance.c -- DESIGN: Glance, the quick half of a check: does a watched name certainly hold what it held? The
 * engines ask after every line or instruction that can change it, on the thread that ran it, so the answer costs a
 * look-up and some comparisons of addresses. "No" means only that Python has to look closer (Watch.check): the value
 * changed, or cannot be read here without running code of the user, or what it holds is too long to be compared here.
 *
 * Owns the value and the copied items that it compares with; of what it reads from it owns what Python gave it, a weak
 * reference where the target has one. A frame is kept as an address and never followed: the frame that runs is compared
 * with it, and a watch tells whether a frame has ended by its references.
 */
#include "cpython.h"

#include "trace.h"

#include <string.h>

/* More is left to Python, which compares under a budget. */
enum { ITEMS_MAX = 64 };

enum kind { UNKNOWN, NAMESPACE, LOCAL, CELL, ATTRIBUTE, CLASS, ITEM, OBJECT };

static const char *const kind_names[] = {
	[UNKNOWN] = "unknown",     [NAMESPACE] = "namespace", [LOCAL] = "local", [CELL] = "cell",
	[ATTRIBUTE] = "attribute", [CLASS] = "class",         [ITEM] = "item",   [OBJECT] = "object",
};

struct glance {
	PyObject_HEAD enum kind kind;
	PyObject *holder; /* what is read from, or a weak reference to it; NULL for a local */
	PyObject *key;
	void *frame; /* of a local: only compared */
	Py_ssize_t index;
	PyObject *last;         /* NULL: always look closer */
	PyObject *keys, *items; /* lists: what `last` held; `items` NULL: it cannot change in place */
};

/* --- reading --- */

/* The object that is read from, as a new reference; NULL when it is gone. */
static PyObject *hold(const struct glance *self)
{
	if (PyWeakref_CheckRef(self->holder))
		return cpython_weakref_get(self->holder);
	return self->holder == Py_None ? NULL : Py_NewRef(self->holder);
}

/* An attribute kept in the object, its slots, or its class as it is. A descriptor's own code is not run. */
static PyObject *attribute_of(PyObject *object, PyObject *name)
{
	PyObject *descriptor = _PyType_Lookup(Py_TYPE(object), name);
	if (descriptor && Py_TYPE(descriptor)->tp_descr_get && !Py_IS_TYPE(descriptor, &PyMemberDescr_Type))
		return NULL;
	PyObject *value = PyObject_GenericGetAttr(object, name);
	Py_XDECREF(value); /* the object, or its class, still has it */
	return value;
}

static PyObject *held_value(const struct glance *self)
{
	PyObject *object = hold(self), *value = NULL;
	if (object && self->kind == ATTRIBUTE)
		value = attribute_of(object, self->key);
	else if (object && PyType_Check(object))
		value = _PyType_Lookup((PyTypeObject *)object, self->key);
	Py_XDECREF(object); /* should that have been the last, `value` is compared, never followed */
	return value;
}

static PyObject *item_of(const struct glance *self)
{
	if (PyDict_CheckExact(self->holder))
		return PyDict_GetItemWithError(self->holder, self->key);
	Py_ssize_t n = PyList_GET_SIZE(self->holder), index = self->index < 0 ? self->index + n : self->index;
	return index >= 0 && index < n ? PyList_GET_ITEM(self->holder, index) : NULL;
}

/* What the name holds, to be compared; NULL when that cannot be told here. May leave an exception. */
static PyObject *read_value(const struct glance *self, PyFrameObject *frame)
{
	switch (self->kind) {
	case NAMESPACE: return PyDict_GetItemWithError(self->holder, self->key);
	case LOCAL: return trace_frame_local(frame, self->index);
	case CELL: return PyCell_GET(self->holder);
	case ATTRIBUTE:
	case CLASS: return held_value(self);
	case ITEM: return item_of(self);
	case OBJECT: return self->holder;
	default: return NULL;
	}
}

/* --- comparing --- */

static bool list_is_unchanged(PyObject *list, PyObject *items)
{
	Py_ssize_t n = PyList_GET_SIZE(items);
	if (PyList_GET_SIZE(list) != n)
		return false;
	for (Py_ssize_t i = 0; i < n; i++)
		if (PyList_GET_ITEM(list, i) != PyList_GET_ITEM(items, i))
			return false;
	return true;
}

static bool dict_is_unchanged(PyObject *dict, PyObject *keys, PyObject *items)
{
	Py_ssize_t n = PyList_GET_SIZE(items), position = 0;
	PyObject *key, *item;
	if (PyDict_GET_SIZE(dict) != n)
		return false;
	for (Py_ssize_t i = 0; i < n && PyDict_Next(dict, &position, &key, &item); i++)
		if (key != PyList_GET_ITEM(keys, i) || item != PyList_GET_ITEM(items, i))
			return false;
	return true;
}

static bool object_is_unchanged(PyObject *object, PyObject *keys, PyObject *items)
{
	PyObject *dict = PyObject_GenericGetDict(object, NULL);
	bool unchanged = dict && PyDict_CheckExact(dict) && dict_is_unchanged(dict, keys, items);
	Py_XDECREF(dict); /* the object's own */
	return unchanged;
}

static bool contents_are_unchanged(const struct glance *self)
{
	if (!self->items)
		return true;
	if (PyList_CheckExact(self->last))
		return list_is_unchanged(self->last, self->items);
	if (PyDict_CheckExact(self->last))
		return dict_is_unchanged(self->last, self->keys, self->items);
	return object_is_unchanged(self->last, self->keys, self->items);
}

bool trace_glance_is_unchanged(PyObject *object, PyFrameObject *frame)
{
	struct glance *self = (struct glance *)object;
	if (self->kind == LOCAL && self->frame != frame)
		return true; /* the same code, but another frame's local */
	if (!self->last)
		return false;
	bool unchanged = read_value(self, frame) == self->last && contents_are_unchanged(self);
	if (!unchanged && PyErr_Occurred())
		PyErr_Clear();
	return unchanged;
}

/* --- what it compares with --- */

static bool can_compare(PyObject *value, PyObject *keys, PyObject *items)
{
	if (!PyList_CheckExact(items) || PyList_GET_SIZE(items) > ITEMS_MAX)
		return false;
	if (keys == Py_None)
		return PyList_CheckExact(value);
	if (!PyList_CheckExact(keys) || PyList_GET_SIZE(keys) != PyList_GET_SIZE(items))
		return false;
	return PyDict_CheckExact(value) || (!PyDict_Check(value) && !PyList_Check(value));
}

static void set_last(struct glance *self, PyObject *value, PyObject *keys, PyObject *items)
{
	PyObject *old_last = self->last, *old_keys = self->keys, *old_items = self->items;
	Py_XINCREF(value);
	Py_XINCREF(keys);
	Py_XINCREF(items);
	self->last = value;
	self->keys = keys;
	self->items = items;
	Py_XDECREF(old_last); /* last: a destructor may come back here */
	Py_XDECREF(old_keys);
	Py_XDECREF(old_items);
}

static PyObject *remember(PyObject *object, PyObject *args)
{
	PyObject *value, *keys = Py_None, *items = Py_None;
	if (!PyArg_ParseTuple(args, "O|OO:remember", &value, &keys, &items))
		return NULL;
	if (items == Py_None)
		set_last((struct glance *)object, value, NULL, NULL);
	else if (can_compare(value, keys, items))
		set_last((struct glance *)object, value, keys == Py_None ? NULL : keys, items);
	else
		set_last((struct glance *)object, NULL, NULL, NULL);
	Py_RETURN_NONE;
}

static PyObject *forget(PyObject *object, PyObject *Py_UNUSED(unused))
{
	set_last((struct glance *)object, NULL, NULL, NULL);
	Py_RETURN_NONE;
}

static PyObject *unchanged(PyObject *object, PyObject *frame)
{
	if (!PyFrame_Check(frame))
		return PyErr_Format(PyExc_TypeError, "unchanged() takes a frame");
	return PyBool_FromLong(trace_glance_is_unchanged(object, (PyFrameObject *)frame));
}

/* --- the type --- */

static int kind_of(const char *name)
{
	for (int kind = 0; kind < (int)(sizeof kind_names / sizeof *kind_names); kind++)
		if (strcmp(name, kind_names[kind]) == 0)
			return kind;
	PyErr_Format(PyExc_ValueError, "no kind of name is called %s", name);
	return -1;
}

/* Whether what was given can be read as the kind says. */
static bool fits(const struct glance *self)
{
	PyObject *holder = self->holder, *key = self->key;
	switch (self->kind) {
	case NAMESPACE: return PyDict_Check(holder) && PyUnicode_CheckExact(key);
	case LOCAL: return self->frame && self->index >= 0;
	case CELL: return PyCell_Check(holder);
	case ATTRIBUTE:
	case CLASS: return PyUnicode_CheckExact(key);
	case ITEM: return PyDict_CheckExact(holder) || (PyList_CheckExact(holder) && PyLong_CheckExact(key));
	default: return true;
	}
}

static int set_place(struct glance *self, PyObject *holder, PyObject *key)
{
	if (self->kind == LOCAL && PyFrame_Check(holder))
		self->frame = holder;
	else
		self->holder = Py_NewRef(holder);
	self->key = Py_NewRef(key);
	if (PyLong_CheckExact(key))
		self->index = PyLong_AsSsize_t(key);
	return PyErr_Occurred() ? -1 : 0;
}

/* Glance(kind, holder=None, key=None) */
static PyObject *glance_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "kind", "holder", "key", NULL };
	PyObject *holder = Py_None, *key = Py_None;
	const char *kind_name;
	int kind;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|OO:Glance", names, &kind_name, &holder, &key) ||
	    (kind = kind_of(kind_name)) < 0)
		return NULL;
	struct glance *self = (struct glance *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->kind = (enum kind)kind;
	if (set_place(self, holder, key) == 0 && fits(self))
		return (PyObject *)self;
	if (!PyErr_Occurred())
		PyErr_Format(PyExc_TypeError, "nothing to read a %s from", kind_name);
	Py_DECREF(self);
	return NULL;
}

static int glance_traverse(PyObject *object, visitproc visit, void *arg)
{
	struct glance *self = (struct glance *)object;
	Py_VISIT(self->holder);
	Py_VISIT(self->key);
	Py_VISIT(self->last);
	Py_VISIT(self->keys);
	Py_VISIT(self->items);
	return 0;
}

/* Breaks cycles through what it compares with; what it reads from stays, so that it can be asked until it goes. */
static int glance_clear(PyObject *object)
{
	set_last((struct glance *)object, NULL, NULL, NULL);
	return 0;
}

static void glance_dealloc(PyObject *object)
{
	struct glance *self = (struct glance *)object;
	PyObject_GC_UnTrack(object);
	glance_clear(object);
	Py_CLEAR(self->holder);
	Py_CLEAR(self->key);
	Py_TYPE(object)->tp_free(object);
}

static PyMethodDef glance_methods[] = {
	{ "remember", remember, METH_VARARGS, NULL },
	{ "forget", forget, METH_NOARGS, NULL },
	{ "unchanged", unchanged, METH_O, NULL },
	{ NULL, NULL, 0, NULL },
};

PyTypeObject trace_glance_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "memwatch._core.Glance",
	.tp_basicsize = sizeof(struct glance),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_new = glance_new,
	.tp_traverse = glance_traverse,
	.tp_clear = glance_clear,
	.tp_dealloc = glance_dealloc,
	.tp_methods = glance_methods,
};
