/*
 * secret.c -- DESIGN: see secret.h. Names are cut at all that is no letter and at humps, so that `key` is found in apiKey and not in monkey.
 */
#define _GNU_SOURCE
#include "secret.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

static const char *const words[] = { "pass",    "pwd",  "passphrase", "token", "tokens",        "key",
				     "keys",    "cred", "creds",      "auth",  "authorization", "cookie",
				     "cookies", "pin",  "otp",        "salt",  "private" };
static const char *const anywhere[] = { "passw", "secret", "apikey", "credential", "privatekey" };

static bool is_word(const char *part, size_t n)
{
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strlen(words[i]) == n && strncasecmp(part, words[i], n) == 0)
			return true;
	return false;
}

static bool is_letter(char c)
{
	return isalpha((unsigned char)c);
}

/* Where the part that starts at `part` ends: at a non-letter or before a hump. */
static size_t part_length(const char *part)
{
	size_t n = 1;
	while (is_letter(part[n]) && !(isupper((unsigned char)part[n]) && islower((unsigned char)part[n - 1])))
		n++;
	return n;
}

bool secret_looks_like(const char *name)
{
	for (size_t i = 0; i < sizeof anywhere / sizeof *anywhere; i++)
		if (strcasestr(name, anywhere[i]))
			return true;
	while (*name) {
		size_t n = is_letter(*name) ? part_length(name) : 1;
		if (is_word(name, n))
			return true;
		name += n;
	}
	return false;
}
