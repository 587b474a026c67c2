/*
 * number_json.h -- reads items of a region by their format, as one letter of Python's struct module.
 */
#ifndef NUMBER_JSON_H
#define NUMBER_JSON_H

#include "text.h"

#include <stdint.h>

enum number_kind { NUMBER_NONE, NUMBER_INT, NUMBER_UINT, NUMBER_DOUBLE, NUMBER_BOOL };

struct number_format {
	enum number_kind kind;
	unsigned item_bytes;
	bool swapped; /* the other byte order than this machine's */
};

/* NUMBER_NONE when the format is no number that can be read here. */
struct number_format number_format(const char *format, uint64_t item_bytes);

/*
 * Writes one item as JSON: whole numbers beyond 2^53 as strings, NaN and infinities as "NaN", "Infinity",
 * "-Infinity".
 */
void number_json(struct text *text, const struct number_format *format, const uint8_t *item);

/* A double in the same way. */
void number_json_double(struct text *text, double value);

#endif
