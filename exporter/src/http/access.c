/*
 * access.c -- DESIGN: decides who is answered.
 *
 * Called on the HTTP thread and by the fuzzer; owns nothing. A web page that makes its own name point to
 * 127.0.0.1 reaches this port with the visitor's browser: what stops it is the exact comparison of the Host header.
 * Origin and Sec-Fetch-Site stop other pages' requests, which carry our cookie when they come from another port of the
 * same host. The token is compared in constant time.
 */
#include "access.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

/* Is `text`, up to `n_bytes`, "name" or "name:port"? The port may be left out where it is the scheme's own. */
static bool names_us(const struct access *access, const char *name, const char *text)
{
	size_t n = strlen(name);
	char port[8];
	if (n == 0 || strncasecmp(text, name, n) != 0)
		return false;
	text += n;
	if (*text == '\0')
		return access->port == 0 || access->port == (access->tls ? 443 : 80);
	snprintf(port, sizeof port, ":%u", access->port);
	return access->port != 0 && strcmp(text, port) == 0;
}

static bool host_allowed(const struct access *access, const char *host)
{
	if (access->port == 0)
		return names_us(access, "localhost", host) || names_us(access, access->allowed, host);
	return names_us(access, "localhost", host) || names_us(access, "127.0.0.1", host) ||
	       names_us(access, "[::1]", host) || names_us(access, access->bound, host) ||
	       names_us(access, access->allowed, host) ||
	       (access->allowed[0] != '\0' && strcasecmp(host, access->allowed) == 0);
}

/* Our own origin is the scheme and the very Host of this request. */
static bool origin_is_ours(const struct access *access, const struct access_headers *headers)
{
	const char *scheme = access->tls ? "https://" : "http://";
	return strncmp(headers->origin, scheme, strlen(scheme)) == 0 &&
	       strcasecmp(headers->origin + strlen(scheme), headers->host) == 0;
}

int access_check_origin(const struct access *access, const struct access_headers *headers, bool navigable,
			const char **ret_sentence)
{
	if (headers->n_hosts != 1 || headers->host[0] == '\0') {
		*ret_sentence = "A request needs exactly one Host header, and not an empty one.";
		return 400;
	}
	if (!host_allowed(access, headers->host)) {
		*ret_sentence = "This server does not answer to that Host: use localhost or an allowed_host.";
		return 421;
	}
	if (headers->origin && !origin_is_ours(access, headers)) {
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

/* Compares in a time that depends on the length of `given` only. */
static bool token_equals(const struct access *access, const char *given, size_t n_bytes)
{
	size_t token_bytes = strlen(access->token);
	unsigned char differs = n_bytes != token_bytes;
	for (size_t i = 0; i < n_bytes; i++)
		differs |= (unsigned char)(given[i] ^ access->token[i % token_bytes]);
	return !differs;
}

static bool bearer_holds_token(const struct access *access, const char *authorization)
{
	const char *token = authorization + 6;
	if (strncasecmp(authorization, "Bearer", 6) != 0 || *token != ' ')
		return false;
	token += strspn(token, " ");
	return token_equals(access, token, strcspn(token, " "));
}

static bool cookie_holds_token(const struct access *access, const char *cookie)
{
	size_t name_bytes = strlen(access->cookie);
	while (*cookie != '\0') {
		size_t n;
		cookie += strspn(cookie, "; \t");
		n = strcspn(cookie, ";");
		if (n > name_bytes && memcmp(cookie, access->cookie, name_bytes) == 0 && cookie[name_bytes] == '=' &&
		    token_equals(access, cookie + name_bytes + 1, n - name_bytes - 1))
			return true;
		cookie += n;
	}
	return false;
}

bool access_has_token(const struct access *access, const struct access_headers *headers, const char *from_query)
{
	if (headers->n_authorizations == 1 && bearer_holds_token(access, headers->authorization))
		return true;
	if (headers->cookie && cookie_holds_token(access, headers->cookie))
		return true;
	return from_query && token_equals(access, from_query, strlen(from_query));
}

bool access_token_valid(const char *token)
{
	size_t n = strlen(token);
	return n >= ACCESS_TOKEN_MIN && n <= ACCESS_TOKEN_MAX &&
	       strspn(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == n;
}

int access_token_make(char ret_token[ACCESS_TOKEN_MAX + 1])
{
	unsigned char random[24];
	if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
		return -EIO;
	for (size_t i = 0; i < sizeof random; i++)
		snprintf(ret_token + 2 * i, 3, "%02x", random[i]);
	return 0;
}
