/*
 * typed.c -- DESIGN: formats and shapes of regions, and what is asked of their numbers. On the caller's thread; owns
 * nothing. A format of one letter tells the size of its element; of others, which only buffers of interpreters have, it
 * is told that no such format can be.
 */
#include "typed.h"

#include "base/number.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

/* Its inverse is in ns: neither 0 nor more than there are. */
#define RATE_MIN 1e-9
#define RATE_MAX 1e9

/* The sizes of a letter: on this machine, and where the byte order is named ("standard"). */
static const struct letter {
	char letter;
	uint8_t native, standard;
} letters[] = {
	{ '?', 1, 1 },
	{ 'c', 1, 1 },
	{ 'b', 1, 1 },
	{ 'B', 1, 1 },
	{ 'h', 2, 2 },
	{ 'H', 2, 2 },
	{ 'i', 4, 4 },
	{ 'I', 4, 4 },
	{ 'l', 8, 4 },
	{ 'L', 8, 4 },
	{ 'q', 8, 8 },
	{ 'Q', 8, 8 },
	{ 'n', 8, 8 },
	{ 'N', 8, 8 },
	{ 'P', 8, 8 },
	{ 'e', 2, 2 },
	{ 'f', 4, 4 },
	{ 'd', 8, 8 },
	{ 'g', sizeof(long double), 0 },
};

static const struct letter *letter_of(char letter)
{
	for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
		if (letters[i].letter == letter)
			return &letters[i];
	return NULL;
}

static int no_format(const char *format)
{
	return error_set(
		-EINVAL,
		"\"%s\" is no format: one letter of Python's struct module is, such as \"i\" for int, \"d\" for "
		"double, \"Q\" for uint64_t, or NULL for bytes",
		format);
}

/* Of more than one letter: those that buffers have, with counts, shapes and structures. */
static bool is_known(const char *format)
{
	size_t length = strlen(format), n_digits = strspn(format + 1, "0123456789");
	/* NumPy's names of times, texts and records, which have no letter there. */
	if (strchr("mMSUVc", *format) && n_digits)
		return !format[1 + n_digits] || (format[1 + n_digits] == '[' && format[length - 1] == ']');
	if (strstr(format, "T{") || strstr(format, "X{"))
		return format[length - 1] == '}' || format[length - 1] == ':';
	return strspn(format, "xcbB?hHiIlLqQnNefdgspPZuwO&@=<>(),: 0123456789") == length &&
	       !isdigit((unsigned char)format[length - 1]);
}

static int take_letter(struct memwatch_region_options *options, const struct letter *letter, bool named)
{
	size_t usual = named && letter->standard ? letter->standard : letter->native;
	if (!options->item_bytes)
		options->item_bytes = usual;
	if (options->item_bytes != letter->native && options->item_bytes != letter->standard)
		return error_set(-EINVAL, "an element of format \"%s\" has %zu bytes, not item_bytes=%zu: leave it 0",
				 options->format, usual, options->item_bytes);
	return 0;
}

static int take_format(struct memwatch_region_options *options)
{
	const char *format = options->format;
	bool named = strchr("<>!=", *format) != NULL, marked = named || *format == '@' || *format == '|';
	const char *rest = format + marked;
	const struct letter *letter = *rest && !rest[1] ? letter_of(*rest) : NULL;
	if (letter)
		return take_letter(options, letter, named);
	if (!*rest || (rest[1] ? !is_known(rest) : !strchr("zZuwOspx", *rest)))
		return no_format(format);
	return options->item_bytes
		       ? 0
		       : error_set(-EINVAL, "item_bytes is missing: the size of one element of \"%s\"", format);
}

int typed_take(struct memwatch_region_options *options, size_t size_bytes)
{
	uint64_t n_bytes;
	int error = options->format && *options->format ? take_format(options) : 0;
	if (error)
		return error;
	if (options->item_bytes > UINT32_MAX)
		return error_set(-EINVAL, "item_bytes is at most %u", UINT32_MAX);
	if (options->item_bytes && size_bytes % options->item_bytes != 0)
		return error_set(-EINVAL, "%zu bytes are no whole number of elements of %zu bytes", size_bytes,
				 options->item_bytes);
	if (options->n_dims > MEMWATCH_DIMS_MAX)
		return error_set(-EINVAL, "a shape has at most %d dimensions", MEMWATCH_DIMS_MAX);
	if (options->n_dims && !options->shape)
		return error_set(-EINVAL, "n_dims is %u, but shape is NULL", options->n_dims);
	if (!options->n_dims && options->shape)
		return error_set(-EINVAL, "shape is given, but n_dims is 0: it says how many extents there are");
	n_bytes = options->item_bytes;
	for (uint32_t i = 0; i < options->n_dims; i++)
		if (__builtin_mul_overflow(n_bytes, options->shape[i], &n_bytes))
			n_bytes = UINT64_MAX;
	if (options->n_dims && n_bytes != size_bytes)
		return error_set(-EINVAL, "shape and item_bytes make %llu bytes, the region has %zu",
				 (unsigned long long)n_bytes, size_bytes);
	return 0;
}

/* Bounds that its condition does not look at were meant for another one. */
static int check_bounds(const struct memwatch_region_options *options)
{
	enum memwatch_when when = options->when;
	bool two = when == MEMWATCH_WHEN_OUTSIDE || when == MEMWATCH_WHEN_INSIDE, one = when > MEMWATCH_WHEN_ANY_NAN;
	if (!one && (options->low != 0 || options->high != 0))
		return error_set(-EINVAL, "low and high are bounds of `when`, and this one has none");
	if (one && !two && options->high != 0)
		return error_set(-EINVAL, "high is for MEMWATCH_WHEN_OUTSIDE and _INSIDE; others look at low only");
	if (one && isnan(options->low))
		return error_set(-EINVAL, "low is NaN, and no number is more or less than that");
	if (two && !(options->low <= options->high))
		return error_set(-EINVAL, "low must be at most high, not %g and %g", options->low, options->high);
	if (when == MEMWATCH_WHEN_DELTA_GT && options->low < 0)
		return error_set(-EINVAL, "low is %g, but a distance is never less than 0", options->low);
	return 0;
}

int typed_check_numbers(const struct memwatch_region_options *options)
{
	enum memwatch_number kind = number_of(options->format, options->item_bytes).kind;
	if ((unsigned)options->when > MEMWATCH_WHEN_DELTA_GT)
		return error_set(-EINVAL, "when must be one of enum memwatch_when");
	if (kind == MEMWATCH_NUMBER_NONE && (options->when || options->metric))
		return error_set(-EINVAL, "`%s` needs a region of numbers: give its format",
				 options->when ? "when" : "metric");
	if (options->when == MEMWATCH_WHEN_ANY_NAN && kind != MEMWATCH_NUMBER_DOUBLE)
		return error_set(-EINVAL, "`when`: no element of format \"%s\" can become NaN", options->format);
	if (options->when && options->flags & MEMWATCH_REGION_HASHED)
		return error_set(-EINVAL, "`when` needs old values, which a hashed shadow does not keep");
	if (options->max_rate != 0 && !(options->max_rate >= RATE_MIN && options->max_rate <= RATE_MAX))
		return error_set(-EINVAL, "max_rate is events a second, from %g to %g, or 0 for no limit", RATE_MIN,
				 RATE_MAX);
	return check_bounds(options);
}
