/*
 * listen.c -- DESIGN: opens the listening socket.
 *
 * On the opening thread. The socket is made here and not by libmicrohttpd, which says nothing about why a bind
 * failed. Names other than localhost are not resolved: a resolver may block, and may find another address tomorrow.
 */
#include "listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 128, PORT_TRIES = 16 };

union address {
	struct sockaddr any;
	struct sockaddr_in ipv4;
	struct sockaddr_in6 ipv6;
	struct sockaddr_un local;
};

static int read_host(const char *host, union address *ret_address, socklen_t *ret_bytes)
{
	union address address = { 0 };
	if (strcmp(host, "localhost") == 0)
		host = "127.0.0.1";
	if (inet_pton(AF_INET, host, &address.ipv4.sin_addr) == 1) {
		address.ipv4.sin_family = AF_INET;
		*ret_bytes = sizeof address.ipv4;
	} else if (inet_pton(AF_INET6, host, &address.ipv6.sin6_addr) == 1) {
		address.ipv6.sin6_family = AF_INET6;
		*ret_bytes = sizeof address.ipv6;
	} else {
		return -EINVAL;
	}
	*ret_address = address;
	return 0;
}

static bool is_loopback(const union address *address)
{
	if (address->any.sa_family == AF_INET)
		return ntohl(address->ipv4.sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&address->ipv6.sin6_addr);
}

int listen_is_loopback(const char *host)
{
	union address address;
	socklen_t n_bytes;
	return read_host(host, &address, &n_bytes) < 0 ? -EINVAL : is_loopback(&address);
}

/*
 * A Unix socket is bound under the process's umask for a moment; until listen() nobody can connect, and the mode is set
 * before that.
 */
static int bind_and_listen(const union address *address, socklen_t n_bytes)
{
	const int on = 1, local = address->any.sa_family == AF_UNIX;
	int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (!local)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (address->any.sa_family == AF_INET6) {
		const int only = !IN6_IS_ADDR_UNSPECIFIED(&address->ipv6.sin6_addr); /* "::" is for IPv4, too */
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
	}
	bool bound = bind(fd, &address->any, n_bytes) == 0;
	if (bound && (!local || chmod(address->local.sun_path, 0600) == 0) && listen(fd, BACKLOG) == 0)
		return fd;
	int error = -errno;
	if (bound && local)
		unlink(address->local.sun_path);
	close(fd);
	return error;
}

static void describe(const union address *address, struct listen_result *result)
{
	char text[INET6_ADDRSTRLEN];
	result->loopback = is_loopback(address);
	if (address->any.sa_family == AF_INET) {
		result->port = ntohs(address->ipv4.sin_port);
		result->wildcard = address->ipv4.sin_addr.s_addr == htonl(INADDR_ANY);
		inet_ntop(AF_INET, &address->ipv4.sin_addr, result->literal, sizeof result->literal);
		return;
	}
	result->ipv6 = true;
	result->port = ntohs(address->ipv6.sin6_port);
	result->wildcard = IN6_IS_ADDR_UNSPECIFIED(&address->ipv6.sin6_addr);
	inet_ntop(AF_INET6, &address->ipv6.sin6_addr, text, sizeof text);
	snprintf(result->literal, sizeof result->literal, "[%s]", text);
}

static void set_port(union address *address, uint16_t port)
{
	if (address->any.sa_family == AF_INET)
		address->ipv4.sin_port = htons(port);
	else
		address->ipv6.sin6_port = htons(port);
}

static int listen_once(union address address, socklen_t n_bytes, uint16_t port, struct listen_result *ret_result)
{
	struct listen_result result = { .other_fd = -1 };
	set_port(&address, port);
	result.fd = bind_and_listen(&address, n_bytes);
	if (result.fd < 0)
		return result.fd;
	if (getsockname(result.fd, &address.any, &n_bytes) < 0) {
		int error = -errno;
		close(result.fd);
		return error;
	}
	describe(&address, &result);
	*ret_result = result;
	return 0;
}

/*
 * A descriptor, or -errno. Without SO_REUSEADDR: with it, a socket that does not listen keeps nobody off its port.
 */
static int hold_other_loopback(const struct listen_result *result)
{
	const char *host = result->ipv6 ? "127.0.0.1" : "::1";
	const int on = 1;
	union address address;
	socklen_t n_bytes;
	if (read_host(host, &address, &n_bytes) < 0)
		return -EINVAL;
	set_port(&address, result->port);
	int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (address.any.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	if (bind(fd, &address.any, n_bytes) == 0)
		return fd;
	int error = -errno;
	close(fd);
	return error;
}

int listen_tcp(const char *host, uint16_t port, struct listen_result *ret_result)
{
	struct listen_result result = { .other_fd = -1 };
	union address address;
	socklen_t n_bytes;
	int error = read_host(host, &address, &n_bytes);
	for (int i = 0; !error && i < PORT_TRIES; i++) {
		error = listen_once(address, n_bytes, port, &result);
		if (error || !result.loopback)
			break;
		result.other_fd = hold_other_loopback(&result);
		if (result.other_fd != -EADDRINUSE || port != 0 || i + 1 == PORT_TRIES)
			break;
		close(result.fd);
	}
	if (error)
		return error;
	if (result.other_fd < 0)
		result.other_fd = -1; /* that family is not there; or the port that was asked for is taken there */
	*ret_result = result;
	return 0;
}

/* Removes the file if it is a socket that refuses connections: its owner has died. */
static int remove_stale(const union address *address, socklen_t n_bytes)
{
	struct stat info;
	if (lstat(address->local.sun_path, &info) < 0 || !S_ISSOCK(info.st_mode))
		return -EADDRINUSE;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	bool refused = connect(fd, &address->any, n_bytes) < 0 && errno == ECONNREFUSED;
	close(fd);
	if (!refused)
		return -EADDRINUSE;
	return unlink(address->local.sun_path) < 0 ? -errno : 0;
}

int listen_unix(const char *path, struct listen_result *ret_result)
{
	struct listen_result result = { .loopback = true, .other_fd = -1 };
	union address address = { .local = { .sun_family = AF_UNIX } };
	const socklen_t n_bytes = sizeof address.local;
	struct stat info;
	int error;
	if (path[0] == '\0')
		return -EINVAL;
	if (strlen(path) >= sizeof address.local.sun_path)
		return -ENAMETOOLONG;
	memcpy(address.local.sun_path, path, strlen(path) + 1);
	result.fd = bind_and_listen(&address, n_bytes);
	if (result.fd == -EADDRINUSE) {
		error = remove_stale(&address, n_bytes);
		if (error)
			return error;
		result.fd = bind_and_listen(&address, n_bytes);
	}
	if (result.fd < 0)
		return result.fd;
	if (lstat(path, &info) == 0) {
		result.socket_dev = info.st_dev;
		result.socket_ino = info.st_ino;
	}
	*ret_result = result;
	return 0;
}
