/*
 * metrics.h -- /metrics.
 */
#ifndef METRICS_H
#define METRICS_H

#include "http/request.h"
#include "text/text.h"

/* Appends the whole exposition, without what the variables hold unless `values`. 0 or -errno. */
int metrics_render(memwatch_exporter *exporter, struct text *text, bool openmetrics, bool values);

enum MHD_Result metrics_reply(struct request *request);

#endif
