/*
 * routes.h -- the libmicrohttpd daemon.
 */
#ifndef ROUTES_H
#define ROUTES_H

#include <memwatch/exporter.h>

/* Starts to serve on exporter->listen_fd, which stays ours to close if this fails. 0 or -errno. */
int routes_start(memwatch_exporter *exporter, uint32_t connection_limit);

/* Stops and joins; the feeds have been stopped before. Closes the listening descriptor. */
void routes_stop(memwatch_exporter *exporter);

#endif
