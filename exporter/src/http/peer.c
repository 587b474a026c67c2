/*
 * peer.c -- DESIGN: asks the kernel who is at the other end. HTTP thread; owns nothing between two calls.
 *
 * A Unix socket knows its peer (SO_PEERCRED). Of a TCP connection over loopback the peer's socket is on this machine,
 * too: sock_diag finds it by its two addresses and tells whose it is. What is not certain is an error, never a uid:
 *
 *   - a socket that nobody holds any more is shown as root's; it has no inode;
 *   - a uid that our user namespace does not map is shown as the overflow uid, which may be a user's here.
 */
#include "peer.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { OVERFLOW_UID = 65534, ANSWER_MS = 200 };

union address {
	struct sockaddr any;
	struct sockaddr_in ipv4;
	struct sockaddr_in6 ipv6;
	struct sockaddr_un local;
};

struct question {
	struct nlmsghdr header;
	struct inet_diag_req_v2 body;
};

static int uid_of_unix_peer(int fd, uid_t *ret_uid)
{
	struct ucred peer;
	socklen_t n_bytes = sizeof peer;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n_bytes) < 0)
		return -errno;
	*ret_uid = peer.uid;
	return 0;
}

/* The peer's socket has our addresses the other way round. */
static struct question question_about(const union address *peer, const union address *own)
{
	struct question question = {
		.header = { .nlmsg_len = sizeof question,
			    .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			    .nlmsg_flags = NLM_F_REQUEST },
		.body = { .sdiag_family = (uint8_t)peer->any.sa_family,
			  .sdiag_protocol = IPPROTO_TCP,
			  .idiag_states = UINT32_MAX,
			  .id.idiag_cookie = { INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE } },
	};
	struct inet_diag_sockid *id = &question.body.id;
	if (peer->any.sa_family == AF_INET) {
		id->idiag_sport = peer->ipv4.sin_port;
		id->idiag_dport = own->ipv4.sin_port;
		memcpy(id->idiag_src, &peer->ipv4.sin_addr, sizeof peer->ipv4.sin_addr);
		memcpy(id->idiag_dst, &own->ipv4.sin_addr, sizeof own->ipv4.sin_addr);
	} else {
		id->idiag_sport = peer->ipv6.sin6_port;
		id->idiag_dport = own->ipv6.sin6_port;
		memcpy(id->idiag_src, &peer->ipv6.sin6_addr, sizeof peer->ipv6.sin6_addr);
		memcpy(id->idiag_dst, &own->ipv6.sin6_addr, sizeof own->ipv6.sin6_addr);
	}
	return question;
}

/* Sends the question; one message comes back. */
static int ask_kernel(const struct question *question, struct inet_diag_msg *ret_socket)
{
	const struct timeval limit = { .tv_usec = ANSWER_MS * 1000 };
	_Alignas(struct nlmsghdr) char answer[4096] = { 0 };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	ssize_t n = send(fd, question, sizeof *question, 0) < 0 ? -1 : recv(fd, answer, sizeof answer, 0);
	int error = n < 0 ? -errno : 0;
	close(fd);
	if (error)
		return error;
	const struct nlmsghdr *header = (const struct nlmsghdr *)(const void *)answer;
	if (!NLMSG_OK(header, (size_t)n) || header->nlmsg_type != SOCK_DIAG_BY_FAMILY ||
	    header->nlmsg_len < NLMSG_LENGTH(sizeof *ret_socket))
		return -ENOENT;
	memcpy(ret_socket, NLMSG_DATA(header), sizeof *ret_socket);
	return 0;
}

static bool is_loopback(const union address *address)
{
	if (address->any.sa_family == AF_INET)
		return ntohl(address->ipv4.sin_addr.s_addr) >> 24 == 127;
	return address->any.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&address->ipv6.sin6_addr);
}

static int uid_of_tcp_peer(const union address *peer, const union address *own, uid_t *ret_uid)
{
	if (!is_loopback(peer) || !is_loopback(own))
		return -EADDRNOTAVAIL;
	struct question question = question_about(peer, own);
	struct inet_diag_msg found = { 0 };
	int error = ask_kernel(&question, &found);
	if (error)
		return error;
	if (found.idiag_inode == 0)
		return -ENOENT;
	*ret_uid = found.idiag_uid;
	return 0;
}

int peer_uid(int fd, uid_t *ret_uid)
{
	union address own = { 0 }, peer = { 0 };
	socklen_t own_bytes = sizeof own, peer_bytes = sizeof peer;
	if (getsockname(fd, &own.any, &own_bytes) < 0 || getpeername(fd, &peer.any, &peer_bytes) < 0)
		return -errno;
	uid_t uid = OVERFLOW_UID;
	int error = own.any.sa_family == AF_UNIX ? uid_of_unix_peer(fd, &uid) : uid_of_tcp_peer(&peer, &own, &uid);
	if (error)
		return error;
	if (uid == OVERFLOW_UID)
		return -EOVERFLOW;
	*ret_uid = uid;
	return 0;
}
