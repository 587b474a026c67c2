/*
 * number_json.c -- DESIGN: numbers out of bytes.
 *
 * Pure functions, called on the HTTP thread. JSON readers keep numbers as doubles: what a double cannot hold
 * exactly is written as a string.
 */
#include "number_json.h"

#include <math.h>
#include <string.h>

static const uint64_t exact_max = (uint64_t)1 << 53;

static bool width_ok(uint64_t n_bytes)
{
	return n_bytes == 1 || n_bytes == 2 || n_bytes == 4 || n_bytes == 8;
}

struct number_format number_format(const char *format, uint64_t item_bytes)
{
	struct number_format result = { NUMBER_NONE, (unsigned)item_bytes, 0 };
	const bool little = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
	if (*format == '<' || *format == '>' || *format == '!')
		result.swapped = (*format == '<') != little;
	if (strchr("@=<>!", *format) && *format != '\0')
		format++;
	if (*format == 'g' && format[1] == '\0' && item_bytes == sizeof(long double) && !result.swapped)
		result.kind = NUMBER_DOUBLE;
	if (*format == '\0' || format[1] != '\0' || !width_ok(item_bytes))
		return result;
	if (strchr("bhilqn", *format))
		result.kind = NUMBER_INT;
	else if (strchr("BHILQNP", *format))
		result.kind = NUMBER_UINT;
	else if (*format == '?' && item_bytes == 1)
		result.kind = NUMBER_BOOL;
	else if ((*format == 'e' && item_bytes == 2) || (*format == 'f' && item_bytes == 4) ||
		 (*format == 'd' && item_bytes == 8))
		result.kind = NUMBER_DOUBLE;
	return result;
}

/* The item's bits, zero-extended. */
static uint64_t read_bits(const struct number_format *format, const uint8_t *item)
{
	const bool little = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
	uint64_t bits = 0;
	for (unsigned i = 0; i < format->item_bytes; i++) {
		unsigned significance = (little != format->swapped) ? i : format->item_bytes - 1 - i;
		bits |= (uint64_t)item[i] << (8 * significance);
	}
	return bits;
}

static double half_to_double(uint64_t bits)
{
	int exponent = (int)(bits >> 10 & 31);
	double fraction = (double)(bits & 1023), value;
	if (exponent == 31)
		value = fraction != 0 ? NAN : INFINITY;
	else if (exponent == 0)
		value = ldexp(fraction, -24);
	else
		value = ldexp(1024 + fraction, exponent - 25);
	return bits >> 15 & 1 ? -value : value;
}

static double read_double(const struct number_format *format, const uint8_t *item)
{
	const unsigned n_bytes = format->item_bytes;
	const uint64_t bits = n_bytes <= sizeof bits ? read_bits(format, item) : 0;
	const uint32_t bits32 = (uint32_t)bits;
	long double extended;
	double value;
	float value32;
	if (n_bytes > sizeof bits) {
		memcpy(&extended, item, sizeof extended);
		return (double)extended;
	}
	if (n_bytes == 2)
		return half_to_double(bits);
	if (n_bytes == 4) {
		memcpy(&value32, &bits32, sizeof value32);
		return (double)value32;
	}
	memcpy(&value, &bits, sizeof value);
	return value;
}

void number_json_double(struct text *text, double value)
{
	if (isnan(value))
		text_string(text, "\"NaN\"");
	else if (isinf(value))
		text_string(text, value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
	else
		text_double(text, value);
}

static void json_whole(struct text *text, uint64_t magnitude, bool negative)
{
	bool quoted = magnitude > exact_max;
	if (quoted)
		text_char(text, '"');
	if (negative)
		text_char(text, '-');
	text_u64(text, magnitude);
	if (quoted)
		text_char(text, '"');
}

static void json_int(struct text *text, const struct number_format *format, const uint8_t *item)
{
	const unsigned unused = (8 - format->item_bytes) % 8 * 8; /* bits above the item's */
	const int64_t value = (int64_t)(read_bits(format, item) << unused) >> unused;
	json_whole(text, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, value < 0);
}

void number_json(struct text *text, const struct number_format *format, const uint8_t *item)
{
	switch (format->kind) {
	case NUMBER_INT: json_int(text, format, item); break;
	case NUMBER_UINT: json_whole(text, read_bits(format, item), 0); break;
	case NUMBER_DOUBLE: number_json_double(text, read_double(format, item)); break;
	case NUMBER_BOOL: text_string(text, read_bits(format, item) != 0 ? "true" : "false"); break;
	case NUMBER_NONE: text_string(text, "null"); break;
	}
}
