/*
 * status.h -- the small answers: status, regions, health.
 */
#ifndef STATUS_H
#define STATUS_H

#include "http/request.h"

enum MHD_Result status_reply(struct request *request);
enum MHD_Result status_regions(struct request *request);
enum MHD_Result status_healthy(struct request *request);
enum MHD_Result status_ready(struct request *request);

#endif
