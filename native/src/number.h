/*
 * number.h -- elements of typed regions as numbers. Any thread; no state.
 */
#ifndef NUMBER_H
#define NUMBER_H

#include "base.h"

/* What kind of number a format of Python's struct module in native or little-endian order names; NONE for all else. */
enum memwatch_number number_kind(const char *format, size_t item_bytes);

/* One element as a double; exact up to 2^53. */
double number_double(enum memwatch_number kind, size_t item_bytes, const uint8_t *item);
int64_t number_int(size_t item_bytes, const uint8_t *item);
uint64_t number_uint(size_t item_bytes, const uint8_t *item);

void number_summary(enum memwatch_number kind, size_t item_bytes, const uint8_t *items, uint64_t n,
		    struct memwatch_summary *ret_summary);

#endif
