/*
 * demangle.c -- DESIGN: C++ names are read by the C++ library's own function, where the program has that library from
 * its start: every C++ program does. Rust's older scheme, which looks like a C++ name that ends with a hash, needs no
 * library: it is a list of names with a few escapes. What compilers append to the copies and parts that they make of a
 * function goes: nobody wrote it. Any thread; keeps nothing.
 *
 * Loss: Rust's newer scheme (_R...), and C++ names in a program that loads its C++ library later, stay as they are.
 */
#include "demangle.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HASH_DIGITS = 16 };

/* Of libstdc++ or libc++abi; NULL in a program without. */
#pragma weak __cxa_demangle
extern char *__cxa_demangle(const char *symbol, char *buffer, size_t *size, int *ret_status); /* NOLINT: its name */

struct text {
	char *bytes;
	size_t n, size;
};

static bool append(struct text *text, const char *bytes, size_t n)
{
	if (text->n + n + 1 > text->size)
		return false;
	memcpy(text->bytes + text->n, bytes, n);
	text->n += n;
	text->bytes[text->n] = 0;
	return true;
}

/* One of Rust's names for a character: `$LT$`, `$u20$`. How many bytes it has, 0: it is none. */
static size_t append_escape(struct text *text, const char *name, size_t n)
{
	static const struct {
		const char *code, *character;
	} escapes[] = { { "$SP$", "@" }, { "$BP$", "*" }, { "$RF$", "&" }, { "$LT$", "<" },
			{ "$GT$", ">" }, { "$LP$", "(" }, { "$RP$", ")" }, { "$C$", "," } };
	for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++) {
		size_t length = strlen(escapes[i].code);
		if (n >= length && memcmp(name, escapes[i].code, length) == 0)
			return append(text, escapes[i].character, 1) ? length : 0;
	}
	if (n < 4 || name[1] != 'u')
		return 0;
	char *end;
	unsigned long code = strtoul(name + 2, &end, 16);
	char character = (char)code;
	return *end == '$' && code >= 0x20 && code < 0x7f && append(text, &character, 1) ? (size_t)(end + 1 - name) : 0;
}

static bool append_part(struct text *text, const char *name, size_t n)
{
	size_t i = n > 1 && name[0] == '_' && name[1] == '$' ? 1 : 0;
	while (i < n) {
		size_t step = name[i] == '$' ? append_escape(text, name + i, n - i) : 1;
		bool is_path = i + 1 < n && name[i] == '.' && name[i + 1] == '.';
		if (!step)
			return false;
		if (is_path)
			step = append(text, "::", 2) ? 2 : 0;
		else if (name[i] != '$')
			step = append(text, name + i, 1) ? 1 : 0;
		if (!step)
			return false;
		i += step;
	}
	return true;
}

static bool is_hash(const char *name, size_t n)
{
	return n == HASH_DIGITS + 1 && name[0] == 'h' && strspn(name + 1, "0123456789abcdef") >= HASH_DIGITS;
}

/* `_ZN`, names with their lengths before them, the last of which is a hash, `E`. */
static bool demangle_rust(const char *symbol, struct text *text)
{
	const char *at = symbol + 3;
	if (strncmp(symbol, "_ZN", 3) != 0)
		return false;
	while (*at >= '1' && *at <= '9') {
		char *name;
		size_t n = strtoul(at, &name, 10);
		if (n > strlen(name))
			return false;
		at = name + n;
		if (is_hash(name, n) && *at == 'E')
			return text->n > 0;
		if ((text->n && !append(text, "::", 2)) || !append_part(text, name, n))
			return false;
	}
	return false;
}

/* Does a compiler's name for a copy of a function, or for a part, begin here: `.constprop.0`, `.cold`? */
static bool is_appended(const char *at)
{
	static const char *const appended[] = { ".constprop.", ".isra.",   ".part.", ".lto_priv.",
						".llvm.",      ".__uniq.", ".cold",  ".localalias" };
	for (size_t i = 0; i < sizeof appended / sizeof *appended; i++) {
		size_t n = strlen(appended[i]);
		bool is_numbered = appended[i][n - 1] == '.';
		if (strncmp(at, appended[i], n) == 0 &&
		    (is_numbered ? at[n] >= '0' && at[n] <= '9' : !at[n] || at[n] == '.'))
			return true;
	}
	return false;
}

/* How much of it somebody wrote. */
static size_t written_length(const char *symbol)
{
	const char *dot = *symbol ? strchr(symbol + 1, '.') : NULL;
	while (dot && !is_appended(dot))
		dot = strchr(dot + 1, '.');
	return dot ? (size_t)(dot - symbol) : strlen(symbol);
}

const char *demangle(const char *symbol, char *buffer, size_t size)
{
	struct text text = { buffer, 0, size };
	size_t n = written_length(symbol);
	int status = -1;
	if (demangle_rust(symbol, &text))
		return buffer;
	if (n >= size)
		return symbol;
	memcpy(buffer, symbol, n);
	buffer[n] = 0;
	bool is_mangled = strncmp(buffer, "_Z", 2) == 0;
	char *name = is_mangled && __cxa_demangle ? __cxa_demangle(buffer, NULL, NULL, &status) : NULL;
	if (name && status == 0 && strlen(name) < size)
		snprintf(buffer, size, "%s", name);
	free(name);
	return buffer;
}
