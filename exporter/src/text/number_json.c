/*
 * number_json.c -- DESIGN: numbers as JSON.
 *
 * Pure functions, called on the HTTP thread. JSON readers keep numbers as doubles: what a double cannot hold
 * exactly is written as a string.
 */
#include "number_json.h"

#include <math.h>

static const uint64_t exact_max = (uint64_t)1 << 53;

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

void number_json(struct text *text, enum memwatch_number number, const union memwatch_number_value *value)
{
	int64_t as_int = value->as_int;
	switch (number) {
	case MEMWATCH_NUMBER_INT:
		json_whole(text, as_int < 0 ? 0 - (uint64_t)as_int : (uint64_t)as_int, as_int < 0);
		break;
	case MEMWATCH_NUMBER_UINT: json_whole(text, value->as_uint, false); break;
	case MEMWATCH_NUMBER_DOUBLE: number_json_double(text, value->as_double); break;
	case MEMWATCH_NUMBER_NONE: text_string(text, "null"); break;
	}
}
