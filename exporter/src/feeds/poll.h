/*
 * poll.h -- /api/v1/events: a page, a long poll, or a stream for who asks for one.
 */
#ifndef POLL_H
#define POLL_H

#include "http/request.h"

/* Called again for a request whose wait is over. */
enum MHD_Result poll_reply(struct request *request);

#endif
