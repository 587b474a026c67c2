/*
 * text.h -- text that is appended to: numbers, names, escapes; never through the locale.
 *
 * A text whose memory ran out has `failed` set and stays as it was; whoever built it asks once, at the end.
 */
#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <string.h>

struct text {
	char *data;
	size_t n_bytes, capacity;
	bool failed;
};

void text_fini(struct text *text);
int text_grow(struct text *text, size_t n_bytes);

/* Makes room for `n_bytes` more. 0 or -ENOMEM. */
static inline int text_reserve(struct text *text, size_t n_bytes)
{
	return text->capacity - text->n_bytes >= n_bytes ? 0 : text_grow(text, n_bytes);
}

static inline void text_bytes(struct text *text, const char *bytes, size_t n_bytes)
{
	if (n_bytes == 0 || text_reserve(text, n_bytes) < 0)
		return;
	memcpy(text->data + text->n_bytes, bytes, n_bytes);
	text->n_bytes += n_bytes;
}

static inline void text_string(struct text *text, const char *string)
{
	text_bytes(text, string, strlen(string));
}

static inline void text_char(struct text *text, char c)
{
	text_bytes(text, &c, 1);
}

void text_u64(struct text *text, uint64_t value);
void text_i64(struct text *text, int64_t value);

/* "0x7f…", without leading zeros. */
void text_hex(struct text *text, uint64_t value);

/* Sixteen digits. */
void text_hex16(struct text *text, uint64_t value);

/* Nanoseconds as seconds: all digits that are not zero at the end, "12.000000345". */
void text_seconds(struct text *text, uint64_t ns);

/* The shortest digits that read back as `value`, laid out as Prometheus does; NaN, +Inf, -Inf. */
void text_double(struct text *text, double value);

void text_base64(struct text *text, const uint8_t *bytes, size_t n_bytes);

/* As people may read it: memwatch_text_clean. */
void text_clean(struct text *text, const char *string);

/* The inside of a label value of clean text: backslash, quote and line end escaped. */
void text_label(struct text *text, const char *bytes, size_t n_bytes);

/* A JSON string with its quotes. What is not UTF-8 becomes the six characters "\\xNN" stand for. */
void text_json(struct text *text, const char *bytes, size_t n_bytes);

#endif
