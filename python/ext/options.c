/*
 * options.c -- DESIGN: see options.h. Runs under the GIL, owns nothing. Part of each of the extension modules.
 */
#include "options.h"

#include "convert.h"

#include <string.h>

static int set_text(PyObject *value, const char *name, const char **ret_text)
{
	Py_ssize_t n_bytes = 0;
	const char *text = PyUnicode_Check(value) ? PyUnicode_AsUTF8AndSize(value, &n_bytes) : NULL;
	if (!text && !PyErr_Occurred())
		PyErr_Format(PyExc_TypeError, "%s must be a string, not %s", name, Py_TYPE(value)->tp_name);
	if (text && strlen(text) != (size_t)n_bytes) {
		PyErr_Format(PyExc_ValueError, "%s has a zero character in it", name);
		return -1;
	}
	if (!text)
		return -1;
	*ret_text = text;
	return 0;
}

static int set_u16(PyObject *value, const char *name, uint16_t *ret_number)
{
	uint32_t number;
	if (convert_u32(value, name, &number) < 0)
		return -1;
	if (number > UINT16_MAX) {
		PyErr_Format(PyExc_ValueError, "%s=%R: it is a number from 0 to 65535", name, value);
		return -1;
	}
	*ret_number = (uint16_t)number;
	return 0;
}

static int set_bool(PyObject *value, int *ret_bool)
{
	int is_true = PyObject_IsTrue(value);
	if (is_true < 0)
		return -1;
	*ret_bool = is_true;
	return 0;
}

static int set(const struct option *option, PyObject *value, void *options)
{
	void *at = (char *)options + option->offset;
	switch (option->kind) {
	case OPTION_TEXT: return set_text(value, option->name, at);
	case OPTION_U16: return set_u16(value, option->name, at);
	case OPTION_U32: return convert_u32(value, option->name, at);
	case OPTION_U64: return convert_u64(value, option->name, at);
	case OPTION_DOUBLE: return convert_double(value, at);
	case OPTION_BOOL: return set_bool(value, at);
	}
	Py_UNREACHABLE();
}

static const struct option *find(const struct option *table, PyObject *name)
{
	while (table->name && PyUnicode_CompareWithASCIIString(name, table->name) != 0)
		table++;
	return table->name ? table : NULL;
}

int options_parse(PyObject *kwargs, const char *function, const struct option *table, void *options)
{
	PyObject *name, *value;
	Py_ssize_t position = 0;
	while (kwargs && PyDict_Next(kwargs, &position, &name, &value)) {
		const struct option *option = find(table, name);
		if (!option) {
			PyErr_Format(PyExc_TypeError, "%s() has no option %R", function, name);
			return -1;
		}
		if (value != Py_None && set(option, value, options) < 0)
			return -1;
	}
	return 0;
}
