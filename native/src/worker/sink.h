/*
 * sink.h -- the readers of a log. Any thread, any time.
 */
#ifndef SINK_H
#define SINK_H

#include "log.h"

struct memwatch_sink {
	struct log *log;
	struct memwatch_sink *next;
	char name[32];
	uint64_t since; /* its cursor */
	uint64_t received, missed, failed;
	struct memwatch_histogram duration;
	bool has_status;
	struct memwatch_sink_status status;
	int woken; /* guarded by the log's mutex */
};

int sink_open(struct log *log, const char *name, struct memwatch_sink **ret_sink);
void sink_close(struct memwatch_sink *sink);
/* Fills infos of `struct_bytes` each. */
int sink_list(struct log *log, struct memwatch_sink_info *infos, size_t n, size_t struct_bytes);

#endif
