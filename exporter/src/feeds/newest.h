/*
 * newest.h -- /api/v1/events?order=newest: the newest events of the log, newest first.
 */
#ifndef NEWEST_H
#define NEWEST_H

#include "ask.h"
#include "http/request.h"

enum MHD_Result newest_reply(struct request *request, struct ask *ask, bool ndjson);

#endif
