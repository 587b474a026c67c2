/*
 * access.h -- may this request be answered? Host, Origin, token. Pure functions on the headers of one request.
 */
#ifndef ACCESS_H
#define ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { ACCESS_TOKEN_MIN = 32, ACCESS_TOKEN_MAX = 128, ACCESS_NAME_MAX = 300, ACCESS_USERS_MAX = 16 };

/* Who gets /metrics without the token. */
enum access_metrics {
	ACCESS_METRICS_LOCAL, /* everybody on this machine, with values for `uid`, root and `users` only; nobody else */
	ACCESS_METRICS_TOKEN, /* nobody */
	ACCESS_METRICS_OPEN   /* everybody, with values */
};

/* Fixed once the exporter is open. */
struct access {
	uint16_t port; /* 0: a Unix socket */
	bool tls;
	bool local; /* only this machine can reach us */
	enum access_metrics metrics;
	uid_t uid; /* the process's own */
	uid_t users[ACCESS_USERS_MAX];
	unsigned n_users;
	char token[ACCESS_TOKEN_MAX + 1];
	char bound[ACCESS_NAME_MAX];   /* the address that was bound, "" when it is a wildcard */
	char allowed[ACCESS_NAME_MAX]; /* more names, with commas between, "" for none */
};

/* The headers that matter; NULL: absent. */
struct access_headers {
	const char *host, *origin, *fetch_site, *fetch_mode, *authorization;
	const char *accept, *accept_encoding, *if_none_match, *last_event_id;
	unsigned n_hosts, n_origins, n_authorizations;
	bool has_body;
	bool bad_name;  /* of a header */
	bool bad_value; /* of a header, or an address: it holds a NUL or a lone line end, or was folded */
	bool forwarded; /* a proxy asks for somebody else */
	unsigned long total_bytes;
};

/* Where such a request ends is not certain: what follows on its connection must not be taken for another. */
static inline bool access_must_close(const struct access_headers *headers)
{
	return headers->has_body || headers->bad_name || headers->bad_value;
}

/*
 * The status to refuse with and a sentence, or 0: for a Host that is not ours.
 */
int access_check_host(const struct access *access, const struct access_headers *headers, const char **ret_sentence);

/* Likewise, for another origin. `navigable`: a link from elsewhere may lead here. */
int access_check_origin(const struct access *access, const struct access_headers *headers, bool navigable,
			const char **ret_sentence);

/* Does the request carry the token? */
bool access_has_token(const struct access *access, const struct access_headers *headers);

/* The one-time code that the request carries in place of the token, NULL for none. */
const char *access_code(const struct access_headers *headers);

/* May the metrics' values be given to a process of that user? */
bool access_user_may_read(const struct access *access, uid_t uid);

/* Is this a token that the options may hold? */
bool access_token_valid(const char *token);

/* The users of a list such as "prometheus,1001". 0, or -ENOENT: no such user; -E2BIG. */
int access_read_users(struct access *access, const char *list);

/* Compares two strings, of which `given` has `n_bytes`, in a time that depends on `n_bytes` only. */
bool access_equals(const char *secret, const char *given, size_t n_bytes);

/* That many random bytes as hexadecimal digits. 0 or -EIO. */
int access_random(char *ret_text, size_t n_bytes);

#endif
