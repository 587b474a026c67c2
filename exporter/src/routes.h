/*
 * routes.h -- the libmicrohttpd daemon.
 */
#ifndef MEMWATCH_EXPORTER_ROUTES_H
#define MEMWATCH_EXPORTER_ROUTES_H

#include "server.h"

/* Starts to serve on exporter->listen_fd, which stays ours to close if this fails. 0 or -errno. */
int routes_start(struct memwatch_exporter *exporter, uint32_t connection_limit);

/* Stops and joins; the feeds have been stopped before. Closes the listening descriptor. */
void routes_stop(struct memwatch_exporter *exporter);

#endif
