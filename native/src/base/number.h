/*
 * number.h -- elements of typed regions as numbers. Any thread; no state.
 */
#ifndef NUMBER_H
#define NUMBER_H

#include "base.h"

/* How the elements of a region are read. */
struct number {
	enum memwatch_number kind;
	uint32_t item_bytes;
	bool swapped; /* the other byte order than this machine's */
};

/* The number that a format of Python's struct module names; of kind NONE for all that is none. */
struct number number_of(const char *format, size_t item_bytes);

/* One element as a double; exact up to 2^53. */
double number_double(struct number number, const uint8_t *item);
/* One element of any kind; says which member it set. */
enum memwatch_number number_value(struct number number, const uint8_t *item, union memwatch_number_value *ret_value);
/* Elements of kind INT and UINT. */
int64_t number_int(struct number number, const uint8_t *item);
uint64_t number_uint(struct number number, const uint8_t *item);

void number_summary(struct number number, const uint8_t *items, uint64_t n, struct memwatch_summary *ret_summary);

#endif
