/*
 * complain.c -- DESIGN: one sentence a thread, kept until its next failed call. The recorder's thread copies its own into the
 * stats, where others read it.
 */
#include "complain.h"

#include <memwatch/recorder.h>

#include <errno.h>
#include <lmdb.h>
#include <stdarg.h>
#include <stdio.h>

static _Thread_local char sentence[512];

const char *memwatch_recorder_error(void)
{
	return sentence;
}

int complain(int error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(sentence, sizeof sentence, format, arguments);
	va_end(arguments);
	return error;
}

static int errno_of(int result)
{
	switch (result) {
	case MDB_NOTFOUND: return ENOENT;
	case MDB_MAP_FULL:
	case MDB_TXN_FULL: return ENOBUFS;
	case MDB_VERSION_MISMATCH: return EPROTO;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
	case MDB_PANIC: return EBADMSG;
	default: return result > 0 ? result : EIO;
	}
}

int complain_lmdb(int result, const char *what)
{
	return result ? complain(-errno_of(result), "%s: %s", what, mdb_strerror(result)) : 0;
}
