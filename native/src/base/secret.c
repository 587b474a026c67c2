/*
 * secret.c -- DESIGN: see secret.h. Names are cut at all that is no letter, at humps and behind acronyms: `key` is
 * found in apiKey and not in monkey, `token` in APIToken. Python without the core has the same lists, in _pure.py. A
 * name that is hidden by mistake costs its user a line; one that is not costs a secret.
 */
#define _GNU_SOURCE
#include "secret.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

/* A part is one of these. */
static const char *const words[] = {
	"auth",       "authn",     "authorization", "authz",     "bearer",  "cookie",  "cookies",  "cred",   "creds",
	"cvc",        "cvv",       "dsn",           "hmac",      "iban",    "jwt",     "kennwort", "key",    "keys",
	"keystore",   "mdp",       "mfa",           "mnemonic",  "nonce",   "oauth",   "otp",      "pass",   "passcode",
	"passphrase", "pem",       "pepper",        "pin",       "pincode", "private", "pw",       "pwd",    "salt",
	"session",    "sessionid", "sid",           "signature", "ssn",     "tkn",     "token",    "tokens", "totp"
};
/* A part ends in one of these: dbpass, accesstoken. */
static const char *const endings[] = { "token", "pass", "pwd", "pincode", "cookie", "sessionid", "dsn" };
/* The name holds one of these, with or without `_`, `-` or a space in it. */
static const char *const anywhere[] = { "password",         "passwd",      "passwort",   "secret",       "apikey",
					"credential",       "privatekey",  "privkey",    "masterkey",    "enckey",
					"signkey",          "databaseurl", "redisurl",   "webhookurl",   "connstr",
					"connectionstring", "csrf",        "seedphrase", "recoverycode", "backupcode",
					"cardnumber",       "refreshtok" };

/* Words of other meaning that end as secrets do. */
static bool is_harmless(const char *part, size_t n)
{
	static const char *const harmless[] = { "bypass",   "compass",  "encompass", "surpass",
						"trespass", "overpass", "underpass" };
	for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
		if (strlen(harmless[i]) == n && strncasecmp(part, harmless[i], n) == 0)
			return true;
	return false;
}

static bool is_word(const char *part, size_t n)
{
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strlen(words[i]) == n && strncasecmp(part, words[i], n) == 0)
			return true;
	for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
		size_t length = strlen(endings[i]);
		if (length <= n && strncasecmp(part + n - length, endings[i], length) == 0 && !is_harmless(part, n))
			return true;
	}
	return false;
}

/* Does `word` begin here, whatever separates its letters? */
static bool begins_with(const char *name, const char *word)
{
	for (; *word; name++) {
		if (*name == '_' || *name == '-' || *name == ' ')
			continue;
		if (tolower((unsigned char)*name) != *word++)
			return false;
	}
	return true;
}

static bool is_letter(char c)
{
	return isalpha((unsigned char)c);
}

static bool is_upper(char c)
{
	return isupper((unsigned char)c);
}

static bool is_lower(char c)
{
	return islower((unsigned char)c);
}

/*
 * Where the part that starts at `part` ends: at a non-letter, before a hump, or before the last capital of an acronym.
 */
static size_t part_length(const char *part)
{
	size_t n = 1;
	while (is_letter(part[n])) {
		if (is_upper(part[n]) && (is_lower(part[n - 1]) || is_lower(part[n + 1])))
			break;
		n++;
	}
	return n;
}

bool secret_looks_like(const char *name)
{
	for (const char *at = name; *at; at++)
		for (size_t i = 0; i < sizeof anywhere / sizeof *anywhere; i++)
			if (begins_with(at, anywhere[i]))
				return true;
	while (*name) {
		size_t n = is_letter(*name) ? part_length(name) : 1;
		if (is_word(name, n))
			return true;
		name += n;
	}
	return false;
}
