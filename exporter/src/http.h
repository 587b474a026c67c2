/*
 * http.h -- the libmicrohttpd daemon.
 */
#ifndef MEMWATCH_EXPORTER_HTTP_H
#define MEMWATCH_EXPORTER_HTTP_H

#include "server.h"

/* Starts to serve on exporter->listen_fd, which stays ours to close if this fails. 0 or -errno. */
int http_start(struct memwatch_exporter *exporter, uint32_t connection_limit);

/* Stops and joins; the feeds have been stopped before. Closes the listening descriptor. */
void http_stop(struct memwatch_exporter *exporter);

#endif
