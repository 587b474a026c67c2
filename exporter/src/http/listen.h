/*
 * listen.h -- the listening socket.
 */
#ifndef LISTEN_H
#define LISTEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What was bound, as the Host check and the address need it. */
struct listen_result {
	int fd;
	int other_fd;  /* see listen_tcp; -1: none */
	uint16_t port; /* 0 for a Unix socket */
	bool loopback, wildcard, ipv6;
	char literal[80]; /* the address in numbers, IPv6 in brackets */
	dev_t socket_dev; /* a Unix socket's file */
	ino_t socket_ino;
};

/*
 * An address in numbers, or "localhost". 0 or -errno; -EINVAL for anything else. `ret_result->other_fd` holds the same
 * port of the other loopback address, without listening: who follows "localhost" there finds nobody, instead of
 * somebody else.
 */
int listen_tcp(const char *host, uint16_t port, struct listen_result *ret_result);

/* Without binding: is the address loopback? 1, 0, or -EINVAL. */
int listen_is_loopback(const char *host);

/* Mode 0600. A socket file that nobody listens on any more is replaced; -EADDRINUSE otherwise. */
int listen_unix(const char *path, struct listen_result *ret_result);

#endif
