/*
 * text.c -- DESIGN: the append writer.
 *
 * Everything that the exporter answers is built with these functions, on whichever thread builds it; a text belongs to
 * one thread. Numbers are those of digits.c. Names come from user code and may hold any byte; what leaves here is valid
 * UTF-8 always, since one bad byte would make Prometheus reject a whole scrape and a browser a whole feed.
 */
#include "text.h"

#include "digits.h"

#include <memwatch/reader.h>

#include <errno.h>
#include <stdlib.h>

void text_fini(struct text *text)
{
	free(text->data);
	memset(text, 0, sizeof *text);
}

int text_grow(struct text *text, size_t n_bytes)
{
	size_t capacity = text->capacity < 256 ? 256 : text->capacity;
	char *data;
	if (text->failed || n_bytes > SIZE_MAX / 4 - text->n_bytes)
		goto failed;
	while (capacity - text->n_bytes < n_bytes)
		capacity *= 2;
	data = realloc(text->data, capacity);
	if (!data)
		goto failed;
	text->data = data;
	text->capacity = capacity;
	return 0;
failed:
	text->failed = true;
	return -ENOMEM;
}

/* --- numbers ---------------------------------------------------------------------------------------------------- */

/* Where the next number goes, with room for it; NULL without memory. */
static char *room(struct text *text)
{
	return text_reserve(text, DIGITS_MAX) < 0 ? NULL : text->data + text->n_bytes;
}

static void ends_at(struct text *text, const char *end)
{
	text->n_bytes = (size_t)(end - text->data);
}

void text_u64(struct text *text, uint64_t value)
{
	char *out = room(text);
	if (out)
		ends_at(text, digits_u64(out, value));
}

void text_i64(struct text *text, int64_t value)
{
	char *out = room(text);
	if (out)
		ends_at(text, digits_i64(out, value));
}

void text_seconds(struct text *text, uint64_t ns)
{
	char *out = room(text);
	if (out)
		ends_at(text, digits_seconds(out, ns));
}

void text_double(struct text *text, double value)
{
	char *out = room(text);
	if (out)
		ends_at(text, digits_double(out, value));
}

static void hex_digits(struct text *text, uint64_t value, int n_digits)
{
	while (n_digits-- > 0)
		text_char(text, "0123456789abcdef"[value >> (4 * n_digits) & 15]);
}

void text_hex(struct text *text, uint64_t value)
{
	int n_digits = 1;
	while (n_digits < 16 && value >> (4 * n_digits) != 0)
		n_digits++;
	text_string(text, "0x");
	hex_digits(text, value, n_digits);
}

void text_hex16(struct text *text, uint64_t value)
{
	hex_digits(text, value, 16);
}

/* --- bytes and names -------------------------------------------------------------------------------------------- */

void text_base64(struct text *text, const uint8_t *bytes, size_t n_bytes)
{
	static const char letters[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t i;
	if (text_reserve(text, (n_bytes + 2) / 3 * 4) < 0)
		return;
	char *out = text->data + text->n_bytes;
	for (i = 0; i + 2 < n_bytes; i += 3) {
		uint32_t group = (uint32_t)bytes[i] << 16 | (uint32_t)bytes[i + 1] << 8 | bytes[i + 2];
		*out++ = letters[group >> 18];
		*out++ = letters[group >> 12 & 63];
		*out++ = letters[group >> 6 & 63];
		*out++ = letters[group & 63];
	}
	if (i < n_bytes) {
		uint32_t group = (uint32_t)bytes[i] << 16 | (i + 1 < n_bytes ? (uint32_t)bytes[i + 1] << 8 : 0);
		*out++ = letters[group >> 18];
		*out++ = letters[group >> 12 & 63];
		*out++ = i + 1 < n_bytes ? letters[group >> 6 & 63] : '=';
		*out++ = '=';
	}
	text->n_bytes = (size_t)(out - text->data);
}

static void bad_byte(struct text *text, uint8_t byte)
{
	text_string(text, "\\x");
	hex_digits(text, byte, 2);
}

void text_clean(struct text *text, const char *string)
{
	size_t n_bytes = memwatch_text_clean(string, NULL, 0);
	if (text_reserve(text, n_bytes + 1) == 0)
		text->n_bytes += memwatch_text_clean(string, text->data + text->n_bytes, n_bytes + 1);
}

void text_label(struct text *text, const char *bytes, size_t n_bytes)
{
	for (size_t i = 0; i < n_bytes; i++) {
		if (bytes[i] == '\\' || bytes[i] == '"')
			text_char(text, '\\');
		if (bytes[i] == '\n')
			text_string(text, "\\n");
		else
			text_char(text, bytes[i]);
	}
}

/* One character that JSON wants escaped. U+2028 and U+2029 are fine in JSON and in the feeds. */
static void json_escape(struct text *text, uint8_t c)
{
	static const char short_forms[] = "\"\"\\\\\bb\ff\nn\rr\tt";
	const char *form;
	for (form = short_forms; *form != '\0'; form += 2) {
		if ((uint8_t)form[0] == c) {
			text_char(text, '\\');
			text_char(text, form[1]);
			return;
		}
	}
	text_string(text, "\\u00");
	hex_digits(text, c, 2);
}

void text_json(struct text *text, const char *bytes, size_t n_bytes)
{
	const uint8_t *p = (const uint8_t *)bytes;
	size_t i = 0, plain = 0, n;
	text_char(text, '"');
	while (i < n_bytes) {
		n = p[i] < 0x80 ? 1 : memwatch_utf8_length(p + i, n_bytes - i);
		if (n > 1 || (n == 1 && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\' && p[i] != 0x7f)) {
			i += n;
			continue;
		}
		text_bytes(text, bytes + plain, i - plain);
		if (n == 1) {
			json_escape(text, p[i]);
		} else {
			text_char(text, '\\');
			bad_byte(text, p[i]);
		}
		plain = ++i;
	}
	text_bytes(text, bytes + plain, n_bytes - plain);
	text_char(text, '"');
}
