/*
 * status.h -- the small answers: status, regions, health.
 */
#ifndef MEMWATCH_EXPORTER_STATUS_H
#define MEMWATCH_EXPORTER_STATUS_H

#include "server.h"

enum MHD_Result status_reply(struct request *request);
enum MHD_Result status_regions(struct request *request);
enum MHD_Result status_healthy(struct request *request);
enum MHD_Result status_ready(struct request *request);

#endif
