/*
 * wire.c -- finds what libmicrohttpd cut off a request's head. HTTP thread only, owns nothing.
 */
#include "wire.h"

#include <microhttpd.h>
#include <stdint.h>
#include <string.h>

/* Moves on to `next`, which must be between `least` and `most` bytes further. */
static void move(struct wire *wire, const char *next, size_t least, size_t most)
{
	uintptr_t gap = (uintptr_t)next - (uintptr_t)wire->end; /* they need not be of one object: then it is huge */

	wire->cut |= gap < least || gap > most;
	wire->end = next;
}

void wire_address(struct wire *wire, const char *uri)
{
	wire->off = MHD_get_version()[0] != '0';
	wire->end = uri + strlen(uri);
}

void wire_version(struct wire *wire, const char *version)
{
	if (wire->off)
		return;
	move(wire, version, 1, 1);
	wire->end = version + strlen(version);
}

void wire_header(struct wire *wire, const char *name, size_t name_bytes, const char *value, size_t value_bytes)
{
	if (wire->off)
		return;
	move(wire, name, 1, 2); /* a line ends in LF or CRLF */
	wire->end = name + name_bytes;
	if (!value)
		return;
	move(wire, value, 1, SIZE_MAX / 2); /* a colon and spaces; a NUL there leaves the value empty */
	wire->end = value + value_bytes;
}

void wire_finish(struct wire *wire, const char *method, size_t head_bytes)
{
	if (!wire->off)
		move(wire, method + head_bytes, 2, 4); /* the last line's end and the empty line's */
}
