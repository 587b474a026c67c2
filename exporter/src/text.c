/*
 * text.c -- the append writer.
 *
 * DESIGN. Everything that the exporter answers is built with these functions, on whichever thread builds it; a text
 * belongs to one thread. They write digits themselves: the host process may have set a locale whose decimal point is
 * a comma, and printf costs ten times as much. Names come from user code and may hold any byte; what leaves here is
 * valid UTF-8 always, since one bad byte would make Prometheus reject a whole scrape and a browser a whole feed.
 */
#include "text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
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
	if (data == NULL)
		goto failed;
	text->data = data;
	text->capacity = capacity;
	return 0;
failed:
	text->failed = 1;
	return -ENOMEM;
}

/* --- whole numbers ---------------------------------------------------------------------------------------------- */

static const char digit_pairs[201] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
				     "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
				     "8081828384858687888990919293949596979899";

/* Writes `value` so that it ends before `end`; returns where it begins. */
static char *digits_before(char *end, uint64_t value)
{
	while (value >= 100) {
		end -= 2;
		memcpy(end, digit_pairs + 2 * (value % 100), 2);
		value /= 100;
	}
	if (value >= 10) {
		end -= 2;
		memcpy(end, digit_pairs + 2 * value, 2);
	} else {
		*--end = (char)('0' + value);
	}
	return end;
}

void text_u64(struct text *text, uint64_t value)
{
	char digits[TEXT_NUMBER_MAX], *end = digits + sizeof digits, *start;

	if (value < 10) {
		text_char(text, (char)('0' + value));
		return;
	}
	start = digits_before(end, value);
	text_bytes(text, start, (size_t)(end - start));
}

void text_i64(struct text *text, int64_t value)
{
	if (value < 0)
		text_char(text, '-');
	text_u64(text, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
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

void text_seconds(struct text *text, uint64_t ns)
{
	char digits[TEXT_NUMBER_MAX], *end = digits + sizeof digits, *start;
	uint64_t fraction = ns % 1000000000;

	text_u64(text, ns / 1000000000);
	if (fraction == 0)
		return;
	start = digits_before(end, fraction + 1000000000);
	*start = '.';
	while (end[-1] == '0')
		end--;
	text_bytes(text, start, (size_t)(end - start));
}

/* --- doubles ---------------------------------------------------------------------------------------------------- */

struct decimal {
	char digits[32]; /* significant ones, the first is not 0 */
	int n_digits;
	int exponent; /* of the first digit */
};

enum { FRACTION_BITS_MAX = 120 }; /* 10 * 4 * 2^120 still fits in 128 bits */

/*
 * The shortest decimal that reads back as mantissa / 2^n_fraction_bits, by long division: digits are produced until
 * what is left is less than half the distance to the next double, in units of a quarter of that distance.
 */
static void shortest_decimal(uint64_t mantissa, int n_fraction_bits, struct decimal *ret_decimal)
{
	const int shift = n_fraction_bits + 2;
	const unsigned __int128 one = (unsigned __int128)1 << shift;
	uint64_t whole = n_fraction_bits < 64 ? mantissa >> n_fraction_bits : 0;
	unsigned __int128 rest = ((unsigned __int128)mantissa << 2) & (one - 1);
	unsigned __int128 above = 2, below = mantissa == (uint64_t)1 << 52 ? 1 : 2;
	char buffer[TEXT_NUMBER_MAX], *end = buffer + sizeof buffer, *start;
	int n = 0, digit, low, high;

	ret_decimal->exponent = -1;
	if (whole != 0) {
		start = digits_before(end, whole);
		n = (int)(end - start);
		memcpy(ret_decimal->digits, start, (size_t)n);
		ret_decimal->exponent = n - 1;
	}
	do {
		rest *= 10;
		above *= 10;
		below *= 10;
		digit = (int)(rest >> shift);
		rest &= one - 1;
		low = rest < below;
		high = rest + above > one;
		if (high && (!low || rest > one / 2))
			digit++;
		if (n == 0 && digit == 0)
			ret_decimal->exponent--;
		else
			ret_decimal->digits[n++] = (char)('0' + digit);
	} while (!low && !high);
	ret_decimal->n_digits = n;
}

/* Seventeen digits by the C library, for what is too large or too small for the division above. */
static void library_decimal(double value, struct decimal *ret_decimal)
{
	char buffer[64];
	const char *p = buffer;
	int n = 0;

	snprintf(buffer, sizeof buffer, "%.16e", value);
	for (; *p != 'e' && *p != '\0'; p++) {
		if (*p >= '0' && *p <= '9')
			ret_decimal->digits[n++] = *p;
	}
	while (n > 1 && ret_decimal->digits[n - 1] == '0')
		n--;
	ret_decimal->n_digits = n;
	ret_decimal->exponent = *p == 'e' ? atoi(p + 1) : 0;
}

static void zeros(struct text *text, int n)
{
	while (n-- > 0)
		text_char(text, '0');
}

static void lay_out(struct text *text, const struct decimal *decimal)
{
	const char *digits = decimal->digits;
	int n = decimal->n_digits, exponent = decimal->exponent;

	if (exponent < -4 || exponent >= 16) {
		text_char(text, digits[0]);
		if (n > 1)
			text_char(text, '.');
		text_bytes(text, digits + 1, (size_t)(n - 1));
		text_string(text, exponent < 0 ? "e-" : "e+");
		exponent = abs(exponent);
		zeros(text, exponent < 10);
		text_u64(text, (uint64_t)exponent);
	} else if (exponent < 0) {
		text_string(text, "0.");
		zeros(text, -exponent - 1);
		text_bytes(text, digits, (size_t)n);
	} else {
		int n_whole = n <= exponent + 1 ? n : exponent + 1;

		text_bytes(text, digits, (size_t)n_whole);
		zeros(text, exponent + 1 - n);
		if (n > n_whole) {
			text_char(text, '.');
			text_bytes(text, digits + n_whole, (size_t)(n - n_whole));
		}
	}
}

void text_double(struct text *text, double value)
{
	struct decimal decimal = { 0 };
	uint64_t bits;
	int exponent;

	if (isnan(value)) {
		text_string(text, "NaN");
		return;
	}
	if (isinf(value)) {
		text_string(text, value > 0 ? "+Inf" : "-Inf");
		return;
	}
	if (signbit(value))
		text_char(text, '-');
	value = fabs(value);
	if (value < 0x1p63 && value == (double)(uint64_t)value) {
		text_u64(text, (uint64_t)value);
		return;
	}
	memcpy(&bits, &value, sizeof bits);
	exponent = (int)(bits >> 52) - 1075;
	if (exponent < 0 && exponent >= -FRACTION_BITS_MAX)
		shortest_decimal((bits & (((uint64_t)1 << 52) - 1)) | (uint64_t)1 << 52, -exponent, &decimal);
	else
		library_decimal(value, &decimal);
	lay_out(text, &decimal);
}

/* --- bytes and names -------------------------------------------------------------------------------------------- */

void text_base64(struct text *text, const uint8_t *bytes, size_t n_bytes)
{
	static const char letters[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *out;
	size_t i;

	if (text_reserve(text, (n_bytes + 2) / 3 * 4) < 0)
		return;
	out = text->data + text->n_bytes;
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

static int continues(uint8_t byte)
{
	return (byte & 0xc0) == 0x80;
}

size_t text_utf8_length(const uint8_t *bytes, size_t n_bytes)
{
	uint8_t first;

	if (n_bytes == 0)
		return 0;
	first = bytes[0];
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

static void bad_byte(struct text *text, uint8_t byte)
{
	text_string(text, "\\x");
	hex_digits(text, byte, 2);
}

void text_clean(struct text *text, const char *bytes, size_t n_bytes)
{
	const uint8_t *p = (const uint8_t *)bytes;
	size_t i = 0, n;

	while (i < n_bytes) {
		n = text_utf8_length(p + i, n_bytes - i);
		if (n == 0 || p[i] < 0x20 || p[i] == 0x7f)
			bad_byte(text, p[i]);
		else
			text_bytes(text, bytes + i, n);
		i += n == 0 ? 1 : n;
	}
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
		n = text_utf8_length(p + i, n_bytes - i);
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
