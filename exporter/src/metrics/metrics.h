/*
 * metrics.h -- /metrics.
 */
#ifndef METRICS_H
#define METRICS_H

#include "http/request.h"
#include "text/text.h"

/* Appends the whole exposition. 0 or -errno. */
int metrics_render(memwatch_exporter *exporter, struct text *text, bool openmetrics);

enum MHD_Result metrics_reply(struct request *request);

#endif
