/*
 * demangle.h -- names of C++ and Rust functions as their programmers wrote them.
 */
#ifndef DEMANGLE_H
#define DEMANGLE_H

#include <stddef.h>

/*
 * The readable name of a symbol, in `buffer`; as it is, less what compilers append, where it is not mangled or cannot
 * be read. The symbol itself where that does not fit. May use the host's malloc.
 */
const char *demangle(const char *symbol, char *buffer, size_t size);

#endif
