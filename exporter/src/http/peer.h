/*
 * peer.h -- whose process is at the other end of a connection?
 */
#ifndef PEER_H
#define PEER_H

#include <sys/types.h>

/* The uid of the process on this machine that made the peer's socket. 0 or -errno: it cannot be known. Any thread. */
int peer_uid(int fd, uid_t *ret_uid);

#endif
