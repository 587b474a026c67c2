/*
 * convert.h -- between C and Python: errors, texts, and structs as dictionaries by a table of their fields.
 */
#ifndef MEMWATCH_CONVERT_H
#define MEMWATCH_CONVERT_H

#include "core.h"

#include <stddef.h>

/* Sets the exception for a native -errno, with `sentence`. Always NULL. */
PyObject *convert_error(int error, const char *sentence);

/* The same for an id or a name that may be unknown: -ENOENT is a KeyError. */
PyObject *convert_lookup_error(int error, const char *sentence);

/* Finds memwatch.Error. 0, or -1 with an exception. */
int convert_init(void);

/* Bytes in UTF-8, what is not UTF-8 escaped as os.fsdecode does. */
PyObject *convert_text(const char *text);

/* "full", "preview", "hash", "none", "auto": to the enum and back. -1 with a ValueError. */
int convert_values(const char *text, enum memwatch_values *ret_values);
const char *convert_values_text(enum memwatch_values values);

/* None: -1. Seconds: milliseconds, rounded up, at most a day. -2 with an exception. */
int convert_timeout(PyObject *seconds);

/* Numbers, where they are given (not NULL, not None); ValueError when out of range. 0 or -1. */
int convert_u32(PyObject *value, const char *name, uint32_t *ret_number);
int convert_u64(PyObject *value, const char *name, uint64_t *ret_number);
int convert_double(PyObject *value, double *ret_number);

/* A tuple of `n` extents. */
PyObject *convert_shape(const uint64_t *shape, uint32_t n);

enum field_kind {
	FIELD_U64,
	FIELD_I64,
	FIELD_U32,
	FIELD_I32,
	FIELD_DOUBLE,
	FIELD_BOOL,
	FIELD_SECONDS, /* nanoseconds, as seconds */
	FIELD_TEXT,    /* const char *, never NULL */
	FIELD_CHARS,   /* char[] */
	FIELD_KEY      /* char[], "" is None */
};

struct field {
	const char *name; /* NULL ends a table */
	enum field_kind kind;
	size_t offset;
};

PyObject *convert_field(const void *base, enum field_kind kind, size_t offset);

/* Adds the fields of the struct at `base` to `dict`. 0 or -1. */
int convert_fields(PyObject *dict, const void *base, const struct field *fields);

/* dict[key] = value; takes over the value's reference, which may be NULL (then it fails). 0 or -1. */
int convert_set(PyObject *dict, const char *key, PyObject *value);

/* {"bounds_s", "buckets", "count", "sum_s"}. */
PyObject *convert_histogram(const struct memwatch_histogram *histogram);

#endif
