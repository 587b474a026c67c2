/*
 * digits.c -- DESIGN: writes numbers. Pure functions: a scrape of ten thousand variables writes thirty thousand
 * numbers, and printf costs ten times as much and follows the locale of the host process.
 *
 * The shortest decimal of a double is found by the interval method of Steele and White, which Grisu and Ryu speed up
 * with tables: every decimal between the midpoints to the two neighbours reads back as the double. The unit is chosen
 * so small that the double has 17 or 18 digits. Then the ends of the interval are exact in 128 bits, and no table is
 * needed. Digits are struck off at the end as long as a number with that many zeros lies within.
 *
 * That takes doubles from 2^-9 up, which is nearly all that anybody watches. Smaller ones are divided out digit by
 * digit. What even that cannot hold is left to the C library.
 */
#include "digits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- whole numbers ---------------------------------------------------------------------------------------------- */

static const char digit_pairs[201] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
				     "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
				     "8081828384858687888990919293949596979899";

static const uint64_t powers[20] = { 1,
				     10,
				     100,
				     1000,
				     10000,
				     100000,
				     1000000,
				     10000000,
				     100000000,
				     1000000000,
				     10000000000,
				     100000000000,
				     1000000000000,
				     10000000000000,
				     100000000000000,
				     1000000000000000,
				     10000000000000000,
				     100000000000000000,
				     1000000000000000000,
				     10000000000000000000U };

static int count_digits(uint64_t value)
{
	int guess = (64 - __builtin_clzll(value | 1)) * 1233 >> 12; /* log10 from log2, one too small or right */
	return guess + (value >= powers[guess]);
}

/* Eight digits, zeros in front: two and two of them do not wait for each other. */
static void write_eight(char *out, uint32_t value)
{
	uint32_t high = value / 10000, low = value % 10000;
	memcpy(out, digit_pairs + 2 * (size_t)(high / 100), 2);
	memcpy(out + 2, digit_pairs + 2 * (size_t)(high % 100), 2);
	memcpy(out + 4, digit_pairs + 2 * (size_t)(low / 100), 2);
	memcpy(out + 6, digit_pairs + 2 * (size_t)(low % 100), 2);
}

/* Writes `value` so that it ends before `end`. */
static void write_before(char *end, uint64_t value)
{
	while (value >= 100000000) {
		end -= 8;
		write_eight(end, (uint32_t)(value % 100000000));
		value /= 100000000;
	}
	while (value >= 100) {
		end -= 2;
		memcpy(end, digit_pairs + 2 * (value % 100), 2);
		value /= 100;
	}
	if (value >= 10)
		memcpy(end - 2, digit_pairs + 2 * value, 2);
	else
		end[-1] = (char)('0' + value);
}

char *digits_u64(char *out, uint64_t value)
{
	if (value < 10) {
		*out = (char)('0' + value);
		return out + 1;
	}
	out += count_digits(value);
	write_before(out, value);
	return out;
}

char *digits_i64(char *out, int64_t value)
{
	*out = '-';
	return digits_u64(out + (value < 0), value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

char *digits_seconds(char *out, uint64_t ns)
{
	uint64_t fraction = ns % 1000000000;
	out = digits_u64(out, ns / 1000000000);
	if (fraction == 0)
		return out;
	write_before(out + 10, fraction + 1000000000);
	*out = '.';
	out += 10;
	while (out[-1] == '0')
		out--;
	return out;
}

/* --- doubles ---------------------------------------------------------------------------------------------------- */

struct decimal {
	uint64_t digits; /* significant ones, the last is not 0 */
	int n_digits;
	int exponent; /* of the first digit */
};

/* The decimals that read back as the double, in units of 10^n_struck times the first unit. */
struct interval {
	uint64_t low, high, nearest; /* `nearest` the value itself, rounded down; between the others or just below */
	int up;                      /* the value is nearer to nearest + 1; of two as near, to the even one */
	int exact;                   /* nothing but zeros was cut off from `nearest` */
	int n_struck;
};

/*
 * Strikes digits off, if a number without them is still within; says whether. `power` is a constant: division is not
 * one then.
 */
static inline __attribute__((always_inline)) int strike(struct interval *interval, uint64_t power, int n)
{
	uint64_t low = interval->low / power + (interval->low % power != 0), high = interval->high / power;
	if (low > high)
		return 0;
	uint64_t rest = interval->nearest % power;
	interval->low = low;
	interval->high = high;
	interval->nearest /= power;
	interval->up = 2 * rest > power || (2 * rest == power && (!interval->exact || interval->nearest & 1));
	interval->exact &= rest == 0;
	interval->n_struck += n;
	return 1;
}

/* As many as can be, up to 17. A double that was computed loses one or two, one that was written down nearly all. */
static void strike_all(struct interval *interval)
{
	if (!strike(interval, 10, 1) || !strike(interval, 10, 1))
		return;
	strike(interval, 100000000, 8);
	strike(interval, 10000, 4);
	strike(interval, 100, 2);
	strike(interval, 10, 1);
}

enum { DIRECT_EXPONENT_MIN = -9 }; /* then 10^(digits after the point) still fits in 64 bits */

/* mantissa / 2^n_fraction_bits, at least 2^-9 and no whole number. */
static struct decimal strike_decimal(uint64_t mantissa, int n_fraction_bits, int exponent)
{
	const int n_places = 16 - (exponent * 1233 >> 12), shift = n_fraction_bits + 2;
	const uint64_t unit = powers[n_places];
	const unsigned __int128 value = (unsigned __int128)(mantissa << 2) * unit, one = (unsigned __int128)1 << shift;
	const unsigned __int128 low = value - (mantissa == (uint64_t)1 << 52 ? unit : 2 * (unsigned __int128)unit);
	const unsigned __int128 high = value + 2 * (unsigned __int128)unit, rest = value & (one - 1);
	const int odd = mantissa & 1; /* the ends read back as the even neighbour */
	struct interval interval = { .low = (uint64_t)((low + (odd ? one : one - 1)) >> shift),
				     .high = (uint64_t)((high - (unsigned)odd) >> shift),
				     .nearest = (uint64_t)(value >> shift),
				     .up = rest > one / 2 || (rest == one / 2 && value >> shift & 1),
				     .exact = rest == 0 };
	struct decimal decimal;

	strike_all(&interval);
	decimal.digits = interval.nearest + (unsigned)interval.up;
	if (decimal.digits < interval.low)
		decimal.digits = interval.low;
	if (decimal.digits > interval.high)
		decimal.digits = interval.high;
	decimal.n_digits = count_digits(decimal.digits);
	decimal.exponent = decimal.n_digits - 1 + interval.n_struck - n_places;
	return decimal;
}

enum { FRACTION_BITS_MAX = 120 }; /* 10 * 4 * 2^120 still fits in 128 bits */

/*
 * The same for values below 1, by long division: digits are produced until what is left is less than half the distance
 * to the next double, in units of a quarter of that distance.
 */
static struct decimal divide_decimal(uint64_t mantissa, int n_fraction_bits)
{
	const int shift = n_fraction_bits + 2;
	const unsigned __int128 one = (unsigned __int128)1 << shift;
	unsigned __int128 rest = (unsigned __int128)mantissa << 2;
	unsigned __int128 above = 2, below = mantissa == (uint64_t)1 << 52 ? 1 : 2;
	struct decimal decimal = { .exponent = -1 };
	int digit, low, high;

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
		if (decimal.digits == 0 && digit == 0)
			decimal.exponent--;
		decimal.digits = decimal.digits * 10 + (unsigned)digit;
	} while (!low && !high);
	decimal.n_digits = count_digits(decimal.digits);
	return decimal;
}

/* Seventeen digits by the C library, for what is too large or too small for the others. */
static struct decimal library_decimal(double value)
{
	struct decimal decimal = { 0 };
	char buffer[64];
	const char *p = buffer;
	snprintf(buffer, sizeof buffer, "%.16e", value);
	for (; *p != 'e' && *p != '\0'; p++) {
		if (*p >= '0' && *p <= '9')
			decimal.digits = decimal.digits * 10 + (unsigned)(*p - '0');
	}
	while (decimal.digits >= 10 && decimal.digits % 10 == 0)
		decimal.digits /= 10;
	decimal.n_digits = count_digits(decimal.digits);
	decimal.exponent = *p == 'e' ? atoi(p + 1) : 0;
	return decimal;
}

/* Writes the digits with a point after the first `n_whole` of them. */
static char *write_pointed(char *out, const struct decimal *decimal, int n_whole)
{
	write_before(out + decimal->n_digits + 1, decimal->digits);
	memmove(out, out + 1, (size_t)n_whole);
	out[n_whole] = '.';
	return out + decimal->n_digits + 1;
}

static char *write_scientific(char *out, const struct decimal *decimal)
{
	int exponent = abs(decimal->exponent);
	out = decimal->n_digits > 1 ? write_pointed(out, decimal, 1) : digits_u64(out, decimal->digits);
	*out++ = 'e';
	*out++ = decimal->exponent < 0 ? '-' : '+';
	if (exponent < 10)
		*out++ = '0';
	return digits_u64(out, (uint64_t)exponent);
}

static char *lay_out(char *out, const struct decimal *decimal)
{
	int exponent = decimal->exponent, n_zeros = -exponent + 1;
	if (exponent < -4 || exponent >= 16)
		return write_scientific(out, decimal);
	if (exponent >= 0)
		return write_pointed(out, decimal, exponent + 1);
	memset(out, '0', (size_t)n_zeros);
	out[1] = '.';
	return digits_u64(out + n_zeros, decimal->digits);
}

static char *write_text(char *out, const char *text)
{
	while (*text != '\0')
		*out++ = *text++;
	return out;
}

char *digits_double(char *out, double value)
{
	struct decimal decimal;
	uint64_t bits;
	if (isnan(value))
		return write_text(out, "NaN");
	if (isinf(value))
		return write_text(out, value > 0 ? "+Inf" : "-Inf");
	if (signbit(value))
		*out++ = '-';
	value = fabs(value);
	if (value < 0x1p63 && value == (double)(uint64_t)value)
		return digits_u64(out, (uint64_t)value);
	memcpy(&bits, &value, sizeof bits);
	int exponent = (int)(bits >> 52) - 1023; /* of its first bit; those below 2^-1022 are for the library */
	uint64_t mantissa = (bits & (((uint64_t)1 << 52) - 1)) | (uint64_t)1 << 52;
	if (exponent >= DIRECT_EXPONENT_MIN && exponent < 52)
		decimal = strike_decimal(mantissa, 52 - exponent, exponent);
	else if (exponent < 0 && exponent >= 52 - FRACTION_BITS_MAX)
		decimal = divide_decimal(mantissa, 52 - exponent);
	else
		decimal = library_decimal(value);
	return lay_out(out, &decimal);
}
