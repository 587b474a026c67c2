/*
 * discovery.h -- the runtime file by which local tools find this exporter.
 */
#ifndef DISCOVERY_H
#define DISCOVERY_H

#include "identity.h"

#include <stdint.h>
#include <sys/types.h>

enum { DISCOVERY_PATH_MAX = 3000 };

/* The file that was made. */
struct discovery {
	int dir_fd; /* of its directory; -1: there is none */
	char name[64];
	char path[DISCOVERY_PATH_MAX + 80]; /* "": there is none */
};

/* What it says of the exporter. */
struct discovery_facts {
	pid_t pid;
	unsigned port; /* 0: a Unix socket */
	uint64_t socket_ino;
	const struct identity *identity;
	const char *address, *unix_socket, *token, *epoch;
};

/*
 * Writes `<runtime_dir>/<pid>-<port>.json`, mode 0600. `runtime_dir` NULL: the default one, and then a failure is no
 * error, since the exporter can be used without; "": nothing is written. 0 or -errno.
 */
int discovery_open(struct discovery *discovery, const struct discovery_facts *facts, const char *runtime_dir);

/* Removes it. */
void discovery_close(struct discovery *discovery);

#endif
