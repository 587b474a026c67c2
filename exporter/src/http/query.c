/*
 * query.c -- DESIGN: parses what a client wrote.
 *
 * Pure functions on strings, called on the HTTP thread and by the fuzzer. libmicrohttpd's own decoding is not
 * used: it ends a path at %00 and passes absolute targets on, and a second opinion about a URL is how requests are
 * smuggled. The path is compared byte for byte and never decoded; only parameter values are, strictly.
 */
#include "query.h"

#include "text/text.h"

#include <memwatch/reader.h>

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

/* --- the request target ----------------------------------------------------------------------------------------- */

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Decodes in place; `ret_bytes` is the length of what came out. */
static const char *decode(char *text, size_t *ret_bytes)
{
	char *out = text;
	const char *in = text;
	while (*in != '\0') {
		if (*in != '%') {
			*out++ = *in == '+' ? ' ' : *in;
			in++;
			continue;
		}
		if (hex_value(in[1]) < 0 || hex_value(in[2]) < 0)
			return "A % in the query is not followed by two hexadecimal digits.";
		*out = (char)(hex_value(in[1]) << 4 | hex_value(in[2]));
		if (*out++ == '\0')
			return "The query must not hold %00.";
		in += 3;
	}
	*out = '\0';
	*ret_bytes = (size_t)(out - text);
	return NULL;
}

static const char *add_parameter(struct query *query, char *text)
{
	struct query_parameter *parameter = &query->parameters[query->n_parameters];
	char *equals = strchr(text, '=');
	size_t name_bytes;
	if (query->n_parameters == QUERY_PARAMETERS_MAX)
		return "There are too many query parameters.";
	if (!equals || equals == text)
		return "Query parameters look like name=value.";
	*equals = '\0';
	parameter->name = text;
	parameter->value = equals + 1;
	const char *wrong = decode(text, &name_bytes);
	if (!wrong)
		wrong = decode(equals + 1, &parameter->value_bytes);
	query->n_parameters++;
	return wrong;
}

const char *query_parse(char *uri, struct query *ret_query)
{
	struct query query = { .path = uri };
	char *p, *next;
	const char *wrong = NULL;
	if (uri[0] != '/')
		return "The request target must begin with a slash.";
	for (p = uri; *p != '\0'; p++) {
		if (*p <= ' ' || *p > '~' || *p == '#' || *p == '\\')
			return "The request target holds a character that must be percent-encoded.";
	}
	p = strchr(uri, '?');
	if (p)
		*p++ = '\0';
	if (strstr(uri, "%00"))
		return "The path must not hold %00.";
	for (; p && *p != '\0' && !wrong; p = next) {
		next = strchr(p, '&');
		if (next)
			*next++ = '\0';
		if (*p != '\0')
			wrong = add_parameter(&query, p);
	}
	*ret_query = query;
	return wrong;
}

const char *query_find(const struct query *query, const char *name)
{
	for (unsigned i = 0; i < query->n_parameters; i++) {
		if (strcmp(query->parameters[i].name, name) == 0)
			return query->parameters[i].value;
	}
	return NULL;
}

const char *query_check(const struct query *query, const char *const *names, const char *repeatable)
{
	for (unsigned i = 0; i < query->n_parameters; i++) {
		const struct query_parameter *parameter = &query->parameters[i];
		const char *const *name = names;

		while (*name && strcmp(*name, parameter->name) != 0)
			name++;
		if (!*name)
			return "There is a query parameter that this address does not know.";
		if (query_find(query, *name) != parameter->value && (!repeatable || strcmp(*name, repeatable) != 0))
			return "A query parameter occurs twice.";
	}
	return NULL;
}

int query_u64(const char *text, uint64_t max, uint64_t *ret_value)
{
	uint64_t value = 0;
	if (*text == '\0')
		return -EINVAL;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
			return -ERANGE;
	}
	if (value > max)
		return -ERANGE;
	*ret_value = value;
	return 0;
}

/* --- globs ------------------------------------------------------------------------------------------------------ */

/* The character at `text`, and its bytes. What is no UTF-8 is a byte, and beyond all characters. */
static uint32_t character(const char *text, size_t n_bytes, size_t *ret_step)
{
	const uint8_t *bytes = (const uint8_t *)text;
	size_t n = bytes[0] < 0x80 ? 1 : memwatch_utf8_length(text, n_bytes);
	*ret_step = n == 0 ? 1 : n;
	if (n == 0)
		return 0x110000 + (uint32_t)bytes[0];
	uint32_t code = n == 1 ? bytes[0] : bytes[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++)
		code = code << 6 | (bytes[i] & 0x3fu);
	return code;
}

/* Bytes of the set that begins at pattern[0] == '[', 0 when it has no end (then `[` stands for itself). */
static size_t set_bytes(const char *pattern, size_t n_bytes)
{
	size_t i = 1;
	if (i < n_bytes && (pattern[i] == '!' || pattern[i] == '^'))
		i++;
	if (i < n_bytes && pattern[i] == ']')
		i++;
	while (i < n_bytes && pattern[i] != ']')
		i++;
	return i < n_bytes ? i + 1 : 0;
}

static bool set_matches(const char *set, size_t n_bytes, uint32_t c)
{
	size_t end = n_bytes - 1, step;
	bool negated = set[1] == '!' || set[1] == '^', found = false;
	for (size_t i = negated ? 2 : 1; i < end; i += step) {
		uint32_t low = character(set + i, end - i, &step), high = low;
		if (i + step + 1 < end && set[i + step] == '-') {
			i += step + 1;
			high = character(set + i, end - i, &step);
		}
		found |= low <= c && c <= high;
	}
	return found != negated;
}

/* Matches one element of the pattern (not `*`) at the text: sets how far both move. */
static bool step_matches(const char *pattern, size_t pattern_bytes, const char *text, size_t text_bytes,
			 size_t *ret_pattern_step, size_t *ret_text_step)
{
	*ret_pattern_step = *ret_text_step = 1;
	if (text_bytes == 0)
		return false;
	if (*pattern == '?') {
		character(text, text_bytes, ret_text_step);
		return true;
	}
	size_t n = *pattern == '[' ? set_bytes(pattern, pattern_bytes) : 0;
	if (n != 0) {
		*ret_pattern_step = n;
		return set_matches(pattern, n, character(text, text_bytes, ret_text_step));
	}
	if (*pattern == '\\' && pattern_bytes > 1) {
		*ret_pattern_step = 2;
		pattern++;
	}
	return *pattern == *text;
}

/* On a mismatch only the last `*` is tried one further: at most pattern times text steps. */
bool query_glob(const char *pattern, size_t pattern_bytes, const char *text, size_t text_bytes)
{
	size_t p = 0, t = 0, p_step, t_step, star = SIZE_MAX, star_text = 0;
	while (t < text_bytes || p < pattern_bytes) {
		if (p < pattern_bytes && pattern[p] == '*') {
			star = ++p;
			star_text = t;
		} else if (p < pattern_bytes &&
			   step_matches(pattern + p, pattern_bytes - p, text + t, text_bytes - t, &p_step, &t_step)) {
			p += p_step;
			t += t_step;
		} else if (star != SIZE_MAX && star_text < text_bytes) {
			p = star;
			character(text + star_text, text_bytes - star_text, &t_step);
			t = star_text += t_step;
		} else {
			return false;
		}
	}
	return true;
}

/* --- Accept ----------------------------------------------------------------------------------------------------- */

struct media_range {
	const char *type;
	size_t type_bytes;
	const char *version; /* NULL: none */
	size_t version_bytes;
	int quality; /* 0 to 1000 */
};

static const char *skip_space(const char *p)
{
	while (*p == ' ' || *p == '\t')
		p++;
	return p;
}

/* "0.75" as 750; what cannot be read counts as 0. */
static int read_quality(const char *p, size_t n_bytes)
{
	int place = 100;
	if (n_bytes == 0 || (*p != '0' && *p != '1'))
		return 0;
	int quality = *p == '1' ? 1000 : 0;
	for (size_t i = 2; i < n_bytes && i < 5 && isdigit((unsigned char)p[i]); i++, place /= 10)
		quality += (p[i] - '0') * place;
	return quality > 1000 ? 1000 : quality;
}

/* Reads the next range of the list; returns what follows it, NULL at the end. */
static const char *next_range(const char *p, struct media_range *ret_range)
{
	struct media_range range = { .quality = 1000 };
	p = skip_space(p);
	while (*p == ',')
		p = skip_space(p + 1);
	if (*p == '\0')
		return NULL;
	range.type = p;
	range.type_bytes = strcspn(p, ",; \t");
	p = skip_space(p + range.type_bytes);
	while (*p == ';') {
		const char *name = skip_space(p + 1);
		size_t name_bytes = strcspn(name, "=,; \t");
		const char *value = name + name_bytes + (name[name_bytes] == '=');
		size_t value_bytes = strcspn(value, ",; \t");
		if (name_bytes == 1 && (*name == 'q' || *name == 'Q'))
			range.quality = read_quality(value, value_bytes);
		if (name_bytes == 7 && strncasecmp(name, "version", 7) == 0) {
			range.version = value;
			range.version_bytes = value_bytes;
		}
		p = skip_space(value + value_bytes);
	}
	*ret_range = range;
	return p + strcspn(p, ",");
}

/* 3 the very type, 2 "text" with a star, 1 the star for all, 0 another. */
static int specificity(const struct media_range *range, const char *type)
{
	size_t main_bytes = strcspn(type, "/") + 1;
	if (range->type_bytes == strlen(type) && strncasecmp(range->type, type, range->type_bytes) == 0)
		return 3;
	if (range->type_bytes == main_bytes + 1 && range->type[main_bytes] == '*' &&
	    strncasecmp(range->type, type, main_bytes) == 0)
		return 2;
	return range->type_bytes == 3 && memcmp(range->type, "*/*", 3) == 0;
}

int query_accept(const char *accept, const char *type)
{
	struct media_range range;
	int best = 0, quality = 0;
	if (!accept || *skip_space(accept) == '\0')
		return 1000;
	while ((accept = next_range(accept, &range))) {
		int specific = specificity(&range, type);
		if (specific > best || (specific == best && specific != 0 && range.quality > quality)) {
			best = specific;
			quality = range.quality;
		}
	}
	return quality;
}

bool query_accept_gzip(const char *accept_encoding)
{
	struct media_range range;
	int gzip = -1, any = 0;
	while (accept_encoding && (accept_encoding = next_range(accept_encoding, &range))) {
		if (specificity(&range, "gzip") == 3 || specificity(&range, "x-gzip") == 3)
			gzip = range.quality;
		if (range.type_bytes == 1 && *range.type == '*')
			any = range.quality;
	}
	return gzip > 0 || (gzip < 0 && any > 0);
}

bool query_accept_openmetrics(const char *accept)
{
	struct media_range range;
	int openmetrics = 0, plain = 0;
	while (accept && (accept = next_range(accept, &range))) {
		if (specificity(&range, "application/openmetrics-text") == 3 &&
		    (!range.version ||
		     (range.version_bytes > 0 && range.version[0] >= '1' && range.version[0] <= '9')) &&
		    range.quality > openmetrics)
			openmetrics = range.quality;
		if (specificity(&range, "text/plain") == 3 && range.quality > plain)
			plain = range.quality;
	}
	return openmetrics > 0 && openmetrics >= plain;
}
