/*
 * error.c -- DESIGN: one sentence a thread, kept until its next failed call. Only the threads that open and close an
 * exporter come here: what goes wrong with a request is told to its client.
 */
#include "error.h"

#include <memwatch/exporter.h>

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char sentence[512];

const char *memwatch_exporter_error(void)
{
	return sentence;
}

int exporter_error(int error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(sentence, sizeof sentence, format, arguments);
	va_end(arguments);
	return error;
}
