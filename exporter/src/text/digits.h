/*
 * digits.h -- numbers as text, into memory that the caller has made room in: DIGITS_MAX bytes each, no NUL. Each
 * function returns where the number ends. Nothing here asks the locale.
 */
#ifndef DIGITS_H
#define DIGITS_H

#include <stdint.h>

enum { DIGITS_MAX = 32 };

char *digits_u64(char *out, uint64_t value);
char *digits_i64(char *out, int64_t value);

/* Nanoseconds as seconds: all digits that are not zero at the end, "12.000000345". */
char *digits_seconds(char *out, uint64_t ns);

/* The shortest digits that read back as `value`, laid out as Prometheus does; NaN, +Inf, -Inf. */
char *digits_double(char *out, double value);

#endif
