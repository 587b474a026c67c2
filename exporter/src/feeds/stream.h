/*
 * stream.h -- /api/v1/events/stream.
 */
#ifndef STREAM_H
#define STREAM_H

#include "http/request.h"

enum MHD_Result stream_reply(struct request *request);

#endif
