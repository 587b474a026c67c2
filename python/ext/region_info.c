/*
 * region_info.c -- DESIGN: what the core knows of regions, as dictionaries: one region's, or all of them in batches, so
 * that the worker is never held up for long. Runs with the GIL on the caller's thread.
 */
#include "convert.h"

static PyObject *number_of(const struct memwatch_region_info *info)
{
	switch (info->number) {
	case MEMWATCH_NUMBER_INT: return PyLong_FromLongLong(info->value.as_int);
	case MEMWATCH_NUMBER_UINT: return PyLong_FromUnsignedLongLong(info->value.as_uint);
	case MEMWATCH_NUMBER_DOUBLE: return PyFloat_FromDouble(info->value.as_double);
	case MEMWATCH_NUMBER_NONE: break;
	}
	Py_RETURN_NONE;
}

static PyObject *info_dict(const struct memwatch_region_info *info)
{
#define AT(member) offsetof(struct memwatch_region_info, member)
	static const struct field fields[] = {
		{ "id", FIELD_U64, AT(id) },
		{ "name", FIELD_CHARS, AT(name) },
		{ "address", FIELD_U64, AT(address) },
		{ "size_bytes", FIELD_U64, AT(size_bytes) },
		{ "backend", FIELD_TEXT, AT(backend) },
		{ "format", FIELD_CHARS, AT(format) },
		{ "item_bytes", FIELD_U64, AT(item_bytes) },
		{ "metric", FIELD_BOOL, AT(metric) },
		{ "precise", FIELD_BOOL, AT(precise) },
		{ "added_ns", FIELD_U64, AT(added_ns) },
		{ "added_seq", FIELD_U64, AT(added_seq) },
		{ "last_seq", FIELD_U64, AT(last_seq) },
		{ "last_time_ns", FIELD_U64, AT(last_time_ns) },
		{ "detected", FIELD_U64, AT(ledger.detected) },
		{ "delivered", FIELD_U64, AT(ledger.delivered) },
		{ "coalesced", FIELD_U64, AT(ledger.coalesced) },
		{ "unchanged", FIELD_U64, AT(ledger.unchanged) },
		{ "filtered", FIELD_U64, AT(ledger.filtered) },
		{ "dropped", FIELD_U64, AT(ledger.dropped) },
		{ NULL, FIELD_U64, 0 },
	};
#undef AT
	PyObject *dict = PyDict_New();
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) -- there always is an info */
	enum memwatch_values values = info->values;
	if (dict && (convert_fields(dict, info, fields) < 0 ||
		     convert_set(dict, "values", convert_text(convert_values_text(values))) < 0 ||
		     convert_set(dict, "shape", convert_shape(info->shape, info->n_dims)) < 0 ||
		     convert_set(dict, "value", number_of(info)) < 0 ||
		     convert_set(dict, "pinned", PyBool_FromLong(info->flags & MEMWATCH_REGION_PINNED)) < 0 ||
		     convert_set(dict, "hashed", PyBool_FromLong(info->flags & MEMWATCH_REGION_HASHED)) < 0 ||
		     convert_set(dict, "external", PyBool_FromLong(info->flags & MEMWATCH_REGION_EXTERNAL)) < 0))
		Py_CLEAR(dict);
	return dict;
}

PyObject *region_info(PyObject *self, PyObject *arg)
{
	struct memwatch_region_info info;
	unsigned long long id = PyLong_AsUnsignedLongLong(arg);
	if (PyErr_Occurred())
		return NULL;
	memwatch *native = watcher_native((struct watcher *)self);
	if (!native)
		return NULL;
	int error = memwatch_region_info_get(native, id, &info);
	return error < 0 ? convert_lookup_error(error, memwatch_error()) : info_dict(&info);
}

static int append_infos(PyObject *list, const struct memwatch_region_info *infos, int n)
{
	for (int i = 0; i < n; i++) {
		PyObject *dict = info_dict(&infos[i]);
		int result = dict ? PyList_Append(list, dict) : -1;
		Py_XDECREF(dict);
		if (result < 0)
			return -1;
	}
	return 0;
}

PyObject *region_list(PyObject *self, PyObject *Py_UNUSED(unused))
{
	enum { BATCH = 64 };
	memwatch *native = watcher_native((struct watcher *)self);
	struct memwatch_region_info *infos = native ? PyMem_Calloc(BATCH, sizeof *infos) : NULL;
	PyObject *list = infos ? PyList_New(0) : native ? PyErr_NoMemory() : NULL;
	uint64_t cursor = 0;
	int n = 1;
	while (list && n > 0) {
		n = memwatch_region_list(native, &cursor, infos, BATCH);
		if (n < 0)
			convert_error(n, memwatch_error());
		if (n < 0 || append_infos(list, infos, n) < 0)
			Py_CLEAR(list);
	}
	PyMem_Free(infos);
	return list;
}
