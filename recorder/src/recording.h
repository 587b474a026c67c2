/*
 * recording.h -- what the readers share: one call is one transaction.
 */
#ifndef RECORDING_H
#define RECORDING_H

#include "lmfile.h"
#include "table.h"

struct memwatch_recording {
	struct lmfile *file;
};

/* First member of each call's own struct. */
struct query {
	memwatch_recording *recording;
	struct table table;
	int (*run)(struct query *query);
};

/* Runs `run` in a transaction, with `query->table` open. */
int recording_query(memwatch_recording *recording, struct query *query, int (*run)(struct query *query));

#endif
