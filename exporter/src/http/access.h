/*
 * access.h -- may this request be answered? Host, Origin, token. Pure functions on the headers of one request.
 */
#ifndef ACCESS_H
#define ACCESS_H

#include <stdbool.h>
#include <stdint.h>

enum { ACCESS_TOKEN_MIN = 16, ACCESS_TOKEN_MAX = 128, ACCESS_NAME_MAX = 300, ACCESS_COOKIE_MAX = 32 };

/* Fixed once the exporter is open. */
struct access {
	uint16_t port; /* 0: a Unix socket */
	bool tls;
	char token[ACCESS_TOKEN_MAX + 1];
	char cookie[ACCESS_COOKIE_MAX]; /* its name; holds the port, since cookies are shared by all ports of a host */
	char bound[ACCESS_NAME_MAX];    /* the address that was bound, "" when it is a wildcard */
	char allowed[ACCESS_NAME_MAX];  /* one more name, "" for none */
};

/* The headers that matter; NULL: absent. */
struct access_headers {
	const char *host, *origin, *fetch_site, *fetch_mode, *authorization, *cookie;
	const char *accept, *if_none_match, *last_event_id;
	unsigned n_hosts, n_authorizations;
	bool has_body;
	bool bad_name; /* of a header */
	unsigned long total_bytes;
};

/* Where such a request ends is not certain: what follows on its connection must not be taken for another. */
static inline bool access_must_close(const struct access_headers *headers)
{
	return headers->has_body || headers->bad_name;
}

/* The status to refuse with and a sentence, or 0. `navigable`: a link from elsewhere may lead here. */
int access_check_origin(const struct access *access, const struct access_headers *headers, bool navigable,
			const char **ret_sentence);

/* Does the request carry the token? `from_query` is the token in the address, NULL for none. */
bool access_has_token(const struct access *access, const struct access_headers *headers, const char *from_query);

/* Is this a token that the options may hold? */
bool access_token_valid(const char *token);

/* A random token. 0 or -errno. */
int access_token_make(char ret_token[ACCESS_TOKEN_MAX + 1]);

#endif
