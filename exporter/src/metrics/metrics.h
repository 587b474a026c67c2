/*
 * metrics.h -- /metrics.
 */
#ifndef MEMWATCH_EXPORTER_METRICS_H
#define MEMWATCH_EXPORTER_METRICS_H

#include "server.h"

/* Appends the whole exposition. 0 or -errno. */
int metrics_render(struct memwatch_exporter *exporter, struct text *text, int openmetrics);

enum MHD_Result metrics_reply(struct request *request);

/* Names, as labels and JSON show them. */
const char *metrics_handler_text(enum handler handler);
const char *metrics_transport_text(enum transport transport);

#endif
