/*
 * convert.c -- DESIGN: the one place where native errors become exceptions and native structs become dictionaries. What
 * a dictionary holds is a table of (name, kind, offset) beside the function that fills it. Runs with the GIL, owns the
 * reference to memwatch.Error.
 */
#include "convert.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static PyObject *error_type;

int convert_init(void)
{
	PyObject *module = PyImport_ImportModule("memwatch._errors");
	if (!module)
		return -1;
	error_type = PyObject_GetAttrString(module, "Error");
	Py_DECREF(module);
	return error_type ? 0 : -1;
}

PyObject *convert_error(int error, const char *sentence)
{
	if (error == -EINVAL || error == -EEXIST || error == -ENAMETOOLONG)
		return PyErr_Format(PyExc_ValueError, "%s", sentence);
	PyObject *args = Py_BuildValue("(is)", -error, sentence);
	if (args)
		PyErr_SetObject(error_type, args);
	Py_XDECREF(args);
	return NULL;
}

PyObject *convert_lookup_error(int error, const char *sentence)
{
	if (error == -ENOENT)
		return PyErr_Format(PyExc_KeyError, "%s", sentence);
	return convert_error(error, sentence);
}

PyObject *convert_text(const char *text)
{
	return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "surrogateescape");
}

static const char *const values_texts[] = { "full", "preview", "hash", "none", "auto" };

int convert_values(const char *text, enum memwatch_values *ret_values)
{
	for (unsigned i = 0; i <= MEMWATCH_VALUES_AUTO; i++)
		if (strcmp(text, values_texts[i]) == 0) {
			*ret_values = (enum memwatch_values)i;
			return 0;
		}
	PyErr_Format(PyExc_ValueError,
		     "values=\"%s\": it is one of \"full\", \"preview\", \"hash\", \"none\", \"auto\"", text);
	return -1;
}

const char *convert_values_text(enum memwatch_values values)
{
	return values_texts[values <= MEMWATCH_VALUES_NONE ? values : MEMWATCH_VALUES_NONE];
}

int convert_timeout(PyObject *seconds)
{
	const double day_ms = 86400e3;
	if (!seconds || seconds == Py_None)
		return -1;
	double ms = ceil(PyFloat_AsDouble(seconds) * 1e3);
	if (PyErr_Occurred())
		return -2;
	if (isnan(ms) || ms < 0) {
		PyErr_SetString(PyExc_ValueError, "a timeout is a number of seconds from 0, or None");
		return -2;
	}
	return (int)(ms < day_ms ? ms : day_ms);
}

int convert_u32(PyObject *value, const char *name, uint32_t *ret_number)
{
	if (!value || value == Py_None)
		return 0;
	unsigned long number = PyLong_AsUnsignedLong(value);
	if (PyErr_Occurred() || number > UINT32_MAX) {
		if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_OverflowError))
			PyErr_Format(PyExc_ValueError, "%s=%R is out of range", name, value);
		return -1;
	}
	*ret_number = (uint32_t)number;
	return 0;
}

int convert_u64(PyObject *value, const char *name, uint64_t *ret_number)
{
	if (!value || value == Py_None)
		return 0;
	unsigned long long number = PyLong_AsUnsignedLongLong(value);
	if (PyErr_Occurred()) {
		if (PyErr_ExceptionMatches(PyExc_OverflowError))
			PyErr_Format(PyExc_ValueError, "%s=%R is out of range", name, value);
		return -1;
	}
	*ret_number = number;
	return 0;
}

int convert_double(PyObject *value, double *ret_number)
{
	if (!value || value == Py_None)
		return 0;
	double number = PyFloat_AsDouble(value);
	if (PyErr_Occurred())
		return -1;
	*ret_number = number;
	return 0;
}

PyObject *convert_shape(const uint64_t *shape, uint32_t n)
{
	PyObject *tuple = PyTuple_New(n);
	for (uint32_t i = 0; tuple && i < n; i++) {
		PyObject *extent = PyLong_FromUnsignedLongLong(shape[i]);
		if (!extent)
			Py_CLEAR(tuple);
		else
			PyTuple_SET_ITEM(tuple, i, extent);
	}
	return tuple;
}

PyObject *convert_field(const void *base, enum field_kind kind, size_t offset)
{
	const void *at = (const char *)base + offset;
	switch (kind) {
	case FIELD_U64: return PyLong_FromUnsignedLongLong(*(const uint64_t *)at);
	case FIELD_I64: return PyLong_FromLongLong(*(const int64_t *)at);
	case FIELD_U32: return PyLong_FromUnsignedLong(*(const uint32_t *)at);
	case FIELD_I32: return PyLong_FromLong(*(const int32_t *)at);
	case FIELD_DOUBLE: return PyFloat_FromDouble(*(const double *)at);
	case FIELD_BOOL: return PyBool_FromLong(*(const int *)at);
	case FIELD_SECONDS: return PyFloat_FromDouble((double)*(const uint64_t *)at / 1e9);
	case FIELD_TEXT: return convert_text(*(const char *const *)at);
	case FIELD_CHARS: return convert_text(at);
	case FIELD_KEY: return *(const char *)at ? convert_text(at) : Py_BuildValue("");
	}
	Py_UNREACHABLE();
}

int convert_set(PyObject *dict, const char *key, PyObject *value)
{
	int result = value ? PyDict_SetItemString(dict, key, value) : -1;
	Py_XDECREF(value);
	return result;
}

int convert_fields(PyObject *dict, const void *base, const struct field *fields)
{
	for (; fields->name; fields++)
		if (convert_set(dict, fields->name, convert_field(base, fields->kind, fields->offset)) < 0)
			return -1;
	return 0;
}

PyObject *convert_histogram(const struct memwatch_histogram *histogram)
{
	PyObject *bounds = PyList_New(0), *buckets = PyList_New(0);
	for (unsigned i = 0; bounds && buckets && i <= MEMWATCH_LATENCY_BUCKETS; i++) {
		PyObject *count = PyLong_FromUnsignedLongLong(histogram->buckets[i]);
		PyObject *bound = i < MEMWATCH_LATENCY_BUCKETS ? PyFloat_FromDouble(memwatch_histogram_bound(i)) : NULL;
		if (!count || PyList_Append(buckets, count) < 0 || (bound && PyList_Append(bounds, bound) < 0))
			Py_CLEAR(buckets);
		Py_XDECREF(count);
		Py_XDECREF(bound);
	}
	if (!bounds || !buckets) {
		Py_XDECREF(bounds);
		Py_XDECREF(buckets);
		return NULL;
	}
	return Py_BuildValue("{sNsNsKsd}", "bounds_s", bounds, "buckets", buckets, "count",
			     (unsigned long long)histogram->count, "sum_s", (double)histogram->sum_ns / 1e9);
}
