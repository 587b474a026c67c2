/*
 * error.c -- DESIGN: one sentence a thread, kept until its next failed call. The recorder's thread copies its own into
 * the stats, where others read it. Nothing is lost but an older sentence.
 */
#include "error.h"

#include <memwatch/recorder.h>

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char sentence[512];

const char *memwatch_recorder_error(void)
{
	return sentence;
}

int recorder_error_set(int error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(sentence, sizeof sentence, format, arguments);
	va_end(arguments);
	return error;
}
