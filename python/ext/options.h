/*
 * options.h -- keyword arguments into a native struct of options, by a table: an option is one row.
 */
#ifndef MEMWATCH_OPTIONS_H
#define MEMWATCH_OPTIONS_H

#include "core.h"

enum option_kind {
	OPTION_TEXT, /* const char *: the argument's own bytes, as long as the arguments live */
	OPTION_U16,
	OPTION_U32,
	OPTION_U64,
	OPTION_DOUBLE,
	OPTION_BOOL /* int */
};

struct option {
	const char *name; /* NULL ends a table */
	enum option_kind kind;
	size_t offset;
};

/*
 * Sets what `kwargs` (NULL, or a dict) has; None leaves the default. `function` is named when there is no such option.
 * 0, or -1 with an exception.
 */
int options_parse(PyObject *kwargs, const char *function, const struct option *table, void *options);

#endif
