/*
 * request.h -- one request, from its target's arrival to the end of its answer. HTTP thread only.
 */
#ifndef REQUEST_H
#define REQUEST_H

#include "access.h"
#include "query.h"
#include "wire.h"

#include <memwatch/exporter.h>
#include <microhttpd.h>

/* Who answers; a label of the metrics. */
enum handler {
	HANDLER_PAGE,
	HANDLER_METRICS,
	HANDLER_HEALTH,
	HANDLER_STATUS,
	HANDLER_REGIONS,
	HANDLER_EVENTS,
	HANDLER_STREAM,
	HANDLER_VALUES,
	HANDLER_OTHER,
	HANDLERS
};

enum { STATUS_CODES = 16 };

/* HTTP thread only. */
struct request_counts {
	uint64_t n[HANDLERS][STATUS_CODES]; /* answers, by who gave them and with which status (reply_status_at) */
	uint64_t bytes_under_way;           /* of answers in memory that their clients have not read to the end */
};

struct request {
	struct memwatch_exporter *exporter;
	struct request_counts *counts; /* the exporter's */
	struct MHD_Connection *connection;
	enum handler handler;
	bool announced; /* the first call, with the headers alone, was there */
	bool head;
	bool trusted;          /* has the token, or comes from a process of a user who may read values */
	uint64_t answer_bytes; /* its part of bytes_under_way */
	const char *authority; /* of an absolute address, up to its path; NULL: it was a path */
	const char *wrong;     /* what is wrong with the target; NULL: nothing */
	unsigned wrong_status;
	struct query query;
	struct access_headers headers;
	struct wire wire;
	struct feed *feed; /* NULL: none */
	char uri[];
};

#endif
