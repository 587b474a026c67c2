/*
 * number_json.h -- numbers as JSON.
 */
#ifndef NUMBER_JSON_H
#define NUMBER_JSON_H

#include "text.h"

#include <memwatch/memwatch.h>

/*
 * Writes a number as JSON: whole numbers beyond 2^53 as strings, NaN and infinities as "NaN", "Infinity", "-Infinity",
 * MEMWATCH_NUMBER_NONE as null.
 */
void number_json(struct text *text, enum memwatch_number number, const union memwatch_number_value *value);

/* A double in the same way. */
void number_json_double(struct text *text, double value);

#endif
