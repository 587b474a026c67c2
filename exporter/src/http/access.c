/*
 * access.c -- DESIGN: decides who is answered. Called on the HTTP thread and by the fuzzer; owns nothing.
 *
 * A web page that makes its own name point to 127.0.0.1 reaches this port with the visitor's browser. What stops it is
 * the exact comparison of the Host header. Origin and Sec-Fetch-Site stop the requests of other pages that know our
 * address. There is no cookie: a browser would send it to every port of 127.0.0.1, whoever listens there. Secrets are
 * compared in constant time.
 */
#include "access.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

/* Is `text` the `n` bytes of a name, alone or with our port? The port may be left out where it is the scheme's own. */
static bool names_us(const struct access *access, const char *name, size_t n, const char *text)
{
	if (n == 0 || strncasecmp(text, name, n) != 0)
		return false;
	text += n;
	if (*text == '\0')
		return access->port == 0 || access->port == (access->tls ? 443 : 80);
	char port[8];
	snprintf(port, sizeof port, ":%u", access->port);
	return access->port != 0 && strcmp(text, port) == 0;
}

/* A name of the list `allowed` may stand as it is, too: with a port of its own, or none, behind a proxy. */
static bool host_listed(const struct access *access, const char *host)
{
	for (const char *name = access->allowed; *name;) {
		size_t n = strcspn(name, ",");
		if (names_us(access, name, n, host) || (strlen(host) == n && strncasecmp(host, name, n) == 0 && n > 0))
			return true;
		name += n + (name[n] == ',');
	}
	return false;
}

static bool host_allowed(const struct access *access, const char *host)
{
	const char *const own[] = { "localhost", "127.0.0.1", "[::1]", access->bound };
	size_t n_own = access->port == 0 ? 1 : sizeof own / sizeof own[0];
	for (size_t i = 0; i < n_own; i++) {
		if (names_us(access, own[i], strlen(own[i]), host))
			return true;
	}
	return host_listed(access, host);
}

/* Our own origin is the scheme and the very Host of this request. */
static bool origin_is_ours(const struct access *access, const struct access_headers *headers)
{
	const char *scheme = access->tls ? "https://" : "http://";
	return headers->host && strncmp(headers->origin, scheme, strlen(scheme)) == 0 &&
	       strcasecmp(headers->origin + strlen(scheme), headers->host) == 0;
}

int access_check_host(const struct access *access, const struct access_headers *headers, const char **ret_sentence)
{
	if (headers->n_hosts != 1 || headers->host[0] == '\0') {
		*ret_sentence = "A request needs exactly one Host header, and not an empty one.";
		return 400;
	}
	if (!host_allowed(access, headers->host)) {
		*ret_sentence = "This server does not answer to that Host: use localhost or an allowed_host.";
		return 421;
	}
	return 0;
}

int access_check_origin(const struct access *access, const struct access_headers *headers, bool navigable,
			const char **ret_sentence)
{
	if (headers->n_origins > 1 || (headers->origin && !origin_is_ours(access, headers))) {
		*ret_sentence = "Requests of other origins are refused.";
		return 403;
	}
	if (headers->fetch_site && strcmp(headers->fetch_site, "same-origin") != 0 &&
	    strcmp(headers->fetch_site, "none") != 0 &&
	    !(navigable && headers->fetch_mode && strcmp(headers->fetch_mode, "navigate") == 0)) {
		*ret_sentence = "Requests of other sites are refused.";
		return 403;
	}
	return 0;
}

bool access_equals(const char *secret, const char *given, size_t n_bytes)
{
	size_t secret_bytes = strlen(secret);
	unsigned char differs = n_bytes != secret_bytes;
	for (size_t i = 0; i < n_bytes; i++)
		differs |= (unsigned char)(given[i] ^ secret[i % secret_bytes]);
	return !differs;
}

/* What follows `scheme` in the one Authorization header; NULL: it is of another scheme, or there is none, or two. */
static const char *credentials(const struct access_headers *headers, const char *scheme)
{
	size_t n = strlen(scheme);
	if (headers->n_authorizations != 1 || strncasecmp(headers->authorization, scheme, n) != 0 ||
	    headers->authorization[n] != ' ')
		return NULL;
	return headers->authorization + n + strspn(headers->authorization + n, " ");
}

bool access_has_token(const struct access *access, const struct access_headers *headers)
{
	const char *token = credentials(headers, "Bearer");
	return token && access_equals(access->token, token, strlen(token));
}

const char *access_code(const struct access_headers *headers)
{
	return credentials(headers, "Memwatch-Code");
}

bool access_user_may_read(const struct access *access, uid_t uid)
{
	if (uid == 0 || uid == access->uid)
		return true;
	for (unsigned i = 0; i < access->n_users; i++) {
		if (access->users[i] == uid)
			return true;
	}
	return false;
}

bool access_token_valid(const char *token)
{
	size_t n = strlen(token);
	return n >= ACCESS_TOKEN_MIN && n <= ACCESS_TOKEN_MAX &&
	       strspn(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == n;
}

/* A name, or a number. */
static int read_user(const char *name, uid_t *ret_uid)
{
	char buffer[4096], *end;
	struct passwd entry, *found = NULL;
	unsigned long number = strtoul(name, &end, 10);
	if (*name >= '0' && *name <= '9' && *end == '\0' && number < UINT32_MAX) {
		*ret_uid = (uid_t)number;
		return 0;
	}
	getpwnam_r(name, &entry, buffer, sizeof buffer, &found);
	if (!found)
		return -ENOENT;
	*ret_uid = entry.pw_uid;
	return 0;
}

int access_read_users(struct access *access, const char *list)
{
	while (*list) {
		char name[64];
		size_t n = strcspn(list, ",");
		if (n >= sizeof name || n == 0)
			return -ENOENT;
		memcpy(name, list, n);
		name[n] = '\0';
		if (access->n_users == ACCESS_USERS_MAX)
			return -E2BIG;
		int error = read_user(name, &access->users[access->n_users]);
		if (error)
			return error;
		access->n_users++;
		list += n + (list[n] == ',');
	}
	return 0;
}

int access_random(char *ret_text, size_t n_bytes)
{
	unsigned char random[64];
	if (n_bytes > sizeof random || getrandom(random, n_bytes, 0) != (ssize_t)n_bytes)
		return -EIO;
	for (size_t i = 0; i < n_bytes; i++)
		snprintf(ret_text + 2 * i, 3, "%02x", random[i]);
	explicit_bzero(random, sizeof random);
	return 0;
}
