/*
 * number.c -- DESIGN: see number.h. Elements are read by memcpy, since buffers need not be aligned.
 */
#include "number.h"

#include <math.h>
#include <string.h>

static enum memwatch_number kind_of(char letter, size_t item_bytes)
{
	bool whole = item_bytes == 1 || item_bytes == 2 || item_bytes == 4 || item_bytes == 8;
	if (strchr("bhilqn", letter) && whole)
		return MEMWATCH_NUMBER_INT;
	if ((strchr("BHILQNP", letter) && whole) || (letter == '?' && item_bytes == 1))
		return MEMWATCH_NUMBER_UINT;
	if ((letter == 'e' && item_bytes == 2) || (letter == 'f' && item_bytes == 4) ||
	    (letter == 'd' && item_bytes == 8) || (letter == 'g' && item_bytes == sizeof(long double)))
		return MEMWATCH_NUMBER_DOUBLE;
	return MEMWATCH_NUMBER_NONE;
}

struct number number_of(const char *format, size_t item_bytes)
{
	struct number number = { .item_bytes = (uint32_t)item_bytes };
	if (!format)
		return number;
	number.swapped = *format == '>' || *format == '!'; /* little-endian machines */
	if (number.swapped || *format == '@' || *format == '=' || *format == '<')
		format++;
	if (*format && !format[1] && !(number.swapped && *format == 'g'))
		number.kind = kind_of(*format, item_bytes);
	return number;
}

uint64_t number_uint(struct number number, const uint8_t *item)
{
	uint64_t value = 0;
	memcpy(&value, item, number.item_bytes);
	return number.swapped ? __builtin_bswap64(value) >> (64 - 8 * number.item_bytes) : value;
}

int64_t number_int(struct number number, const uint8_t *item)
{
	unsigned shift = 64 - 8 * number.item_bytes;
	return (int64_t)(number_uint(number, item) << shift) >> shift;
}

static double half(uint16_t bits)
{
	int exponent = bits >> 10 & 31, fraction = bits & 1023;
	double value = exponent == 31 ? (fraction ? NAN : INFINITY)
		       : exponent     ? ldexp(fraction + 1024, exponent - 25)
				      : ldexp(fraction, -24);
	return bits & 0x8000 ? -value : value;
}

static double extended(const uint8_t *item)
{
	long double value;
	memcpy(&value, item, sizeof value);
	return (double)value;
}

static double single(uint64_t bits)
{
	float value;
	memcpy(&value, &bits, sizeof value);
	return (double)value;
}

double number_double(struct number number, const uint8_t *item)
{
	double value;
	if (number.item_bytes > sizeof value)
		return extended(item);
	if (number.kind == MEMWATCH_NUMBER_INT)
		return (double)number_int(number, item);
	uint64_t bits = number_uint(number, item);
	if (number.kind == MEMWATCH_NUMBER_UINT)
		return (double)bits;
	if (number.item_bytes == 2)
		return half((uint16_t)bits);
	if (number.item_bytes == 4)
		return single(bits);
	memcpy(&value, &bits, sizeof value);
	return value;
}

enum memwatch_number number_value(struct number number, const uint8_t *item, union memwatch_number_value *ret_value)
{
	if (number.kind == MEMWATCH_NUMBER_INT)
		ret_value->as_int = number_int(number, item);
	else if (number.kind == MEMWATCH_NUMBER_UINT)
		ret_value->as_uint = number_uint(number, item);
	else if (number.kind == MEMWATCH_NUMBER_DOUBLE)
		ret_value->as_double = number_double(number, item);
	return number.kind;
}

enum memwatch_number memwatch_number_read(const char *format, size_t item_bytes, const void *item,
					  union memwatch_number_value *ret_value)
{
	return item && ret_value ? number_value(number_of(format, item_bytes), item, ret_value) : MEMWATCH_NUMBER_NONE;
}

void number_summary(struct number number, const uint8_t *items, uint64_t n, struct memwatch_summary *ret_summary)
{
	struct memwatch_summary summary = { .min = NAN, .max = NAN, .mean = NAN, .n_items = n };
	double sum = 0;
	for (uint64_t i = 0; i < n; i++) {
		double value = number_double(number, items + i * number.item_bytes);
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
