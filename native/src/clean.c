/*
 * clean.c -- DESIGN: text of others as people may read it. Names, paths and threads' names may hold any byte; on a
 * terminal, in a log or in a label they must not ring, hide, end the line or turn the direction of reading. On its
 * caller's thread; owns nothing.
 */
#include "base/base.h"

#include <memwatch/reader.h>

#include <string.h>

static bool continues(uint8_t byte)
{
	return (byte & 0xc0) == 0x80;
}

size_t memwatch_utf8_length(const void *text, size_t n_bytes)
{
	const uint8_t *bytes = text;
	if (n_bytes == 0)
		return 0;
	uint8_t first = bytes[0];
	if (first < 0x80)
		return 1;
	if (first < 0xc2 || first > 0xf4 || n_bytes < 2 || !continues(bytes[1]))
		return 0;
	if (first < 0xe0)
		return 2;
	if (n_bytes < 3 || !continues(bytes[2]))
		return 0;
	if (first < 0xf0)
		return (first == 0xe0 && bytes[1] < 0xa0) || (first == 0xed && bytes[1] >= 0xa0) ? 0 : 3;
	if (n_bytes < 4 || !continues(bytes[3]))
		return 0;
	return (first == 0xf0 && bytes[1] < 0x90) || (first == 0xf4 && bytes[1] >= 0x90) ? 0 : 4;
}

/* Does the character of `n` bytes end lines, ring, hide, or turn the direction of reading? */
static bool is_control(const uint8_t *p, size_t n)
{
	if (n == 1)
		return p[0] < 0x20 || p[0] == 0x7f;
	if (n == 2)
		return (p[0] == 0xc2 && (p[1] < 0xa0 || p[1] == 0xad)) || (p[0] == 0xd8 && p[1] == 0x9c);
	if (n != 3)
		return false;
	unsigned c = (p[0] & 15U) << 12 | (p[1] & 63U) << 6 | (p[2] & 63U);
	return (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) ||
	       c == 0xfeff;
}

/* Writes what there is room for, and leaves one byte for the NUL. */
static size_t append(char *buffer, size_t size, size_t length, const char *bytes, size_t n_bytes)
{
	for (size_t i = 0; i < n_bytes; i++)
		if (length + i + 1 < size)
			buffer[length + i] = bytes[i];
	return length + n_bytes;
}

size_t memwatch_text_clean(const char *text, char *buffer, size_t size)
{
	static const char digits[] = "0123456789abcdef";
	size_t n_bytes = text ? strlen(text) : 0, length = 0, step;
	if (!buffer)
		size = 0;
	for (size_t i = 0; i < n_bytes; i += step) {
		size_t n = memwatch_utf8_length(text + i, n_bytes - i);
		bool shown = n && !is_control((const uint8_t *)text + i, n);
		step = n ? n : 1;
		if (shown)
			length = append(buffer, size, length, text + i, step);
		for (size_t k = i; !shown && k < i + step; k++) {
			uint8_t byte = (uint8_t)text[k];
			char escape[] = { '\\', 'x', digits[byte >> 4], digits[byte & 15] };
			length = append(buffer, size, length, escape, sizeof escape);
		}
	}
	if (size)
		buffer[length < size ? length : size - 1] = '\0';
	return length;
}
