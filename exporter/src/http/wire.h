/*
 * wire.h -- does what libmicrohttpd gave us cover all that came? HTTP thread only.
 *
 * DESIGN. libmicrohttpd 0.9 cuts an address and a header at a NUL and says nothing: "Host: 127.0.0.1:80\0.evil" is
 * one name to us and another to a proxy in front. But its strings lie where they were received, each behind the last,
 * so what was cut off is a gap between them. What was not received like that is refused too: a folded line is copied
 * elsewhere. From version 1.0 on its strings lie otherwise: nothing is asked there.
 */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>

struct wire {
	const char *end; /* of what is accounted for */
	bool off;
	bool cut; /* something is not */
};

/* The address as it came, which its NUL ends. */
void wire_address(struct wire *wire, const char *uri);

/* The version, which ends the first line. */
void wire_version(struct wire *wire, const char *version);

/* The next header, in the order in which they came; `value` NULL: it has none. */
void wire_header(struct wire *wire, const char *name, size_t name_bytes, const char *value, size_t value_bytes);

/* The head began at `method` and had so many bytes. */
void wire_finish(struct wire *wire, const char *method, size_t head_bytes);

#endif
