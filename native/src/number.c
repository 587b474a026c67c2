/*
 * number.c -- DESIGN: see number.h. Elements are read by memcpy, since buffers need not be aligned.
 */
#include "number.h"

#include <math.h>
#include <string.h>

enum memwatch_number number_kind(const char *format, size_t item_bytes)
{
	if (!format)
		return MEMWATCH_NUMBER_NONE;
	if (*format == '@' || *format == '=' || *format == '<')
		format++;
	if (!*format || format[1])
		return MEMWATCH_NUMBER_NONE;
	bool whole = item_bytes == 1 || item_bytes == 2 || item_bytes == 4 || item_bytes == 8;
	if (strchr("bhilqn", *format) && whole)
		return MEMWATCH_NUMBER_INT;
	if (strchr("BHILQN?", *format) && whole)
		return MEMWATCH_NUMBER_UINT;
	if ((*format == 'e' && item_bytes == 2) || (*format == 'f' && item_bytes == 4) ||
	    (*format == 'd' && item_bytes == 8))
		return MEMWATCH_NUMBER_DOUBLE;
	return MEMWATCH_NUMBER_NONE;
}

uint64_t number_uint(size_t item_bytes, const uint8_t *item)
{
	uint64_t value = 0;
	memcpy(&value, item, item_bytes); /* little-endian machines */
	return value;
}

int64_t number_int(size_t item_bytes, const uint8_t *item)
{
	unsigned shift = 64 - 8 * (unsigned)item_bytes;
	return (int64_t)(number_uint(item_bytes, item) << shift) >> shift;
}

static double half(uint16_t bits)
{
	int exponent = bits >> 10 & 31, fraction = bits & 1023;
	double value = exponent == 31 ? (fraction ? NAN : INFINITY)
		       : exponent     ? ldexp(fraction + 1024, exponent - 25)
				      : ldexp(fraction, -24);
	return bits & 0x8000 ? -value : value;
}

double number_double(enum memwatch_number kind, size_t item_bytes, const uint8_t *item)
{
	float single;
	double value;
	if (kind == MEMWATCH_NUMBER_INT)
		return (double)number_int(item_bytes, item);
	if (kind == MEMWATCH_NUMBER_UINT)
		return (double)number_uint(item_bytes, item);
	if (item_bytes == 2)
		return half((uint16_t)number_uint(2, item));
	if (item_bytes == 4)
		return memcpy(&single, item, 4), (double)single;
	return memcpy(&value, item, 8), value;
}

void number_summary(enum memwatch_number kind, size_t item_bytes, const uint8_t *items, uint64_t n,
		    struct memwatch_summary *ret_summary)
{
	struct memwatch_summary summary = { .min = NAN, .max = NAN, .mean = NAN, .n_items = n };
	double sum = 0;
	for (uint64_t i = 0; i < n; i++) {
		double value = number_double(kind, item_bytes, items + i * item_bytes);
		if (isnan(value)) {
			summary.n_nan++;
			continue;
		}
		summary.min = summary.min < value ? summary.min : value; /* NaN at first: the value */
		summary.max = summary.max > value ? summary.max : value;
		sum += value;
	}
	if (n > summary.n_nan)
		summary.mean = sum / (double)(n - summary.n_nan);
	*ret_summary = summary;
}
