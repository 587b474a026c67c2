/*
 * demangle.h -- names of C++ and Rust functions as their programmers wrote them.
 */
#ifndef DEMANGLE_H
#define DEMANGLE_H

#include <stddef.h>

/*
 * The readable name of a symbol, in `buffer`; the symbol itself where it is not mangled, or cannot be read. May use the
 * host's malloc.
 */
const char *demangle(const char *symbol, char *buffer, size_t size);

#endif
