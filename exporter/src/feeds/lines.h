/*
 * lines.h -- events as lines of JSON, each written once however many clients read it.
 */
#ifndef LINES_H
#define LINES_H

#include "text/text.h"

#include <memwatch/memwatch.h>

enum { LINES_CAPACITY = 4096, LINES_BATCH = 32, LINES_BYTES_MAX = 8 << 20 };

struct line {
	uint64_t seq; /* 0: the slot is empty */
	uint64_t time_ms;
	uint64_t region_id;
	struct text text; /* the JSON, then the region's name as it was given */
	size_t json_bytes, name_bytes;
};

/* Belongs to the HTTP thread. */
struct lines {
	memwatch *watcher;
	struct line *slots; /* LINES_CAPACITY, by seq; NULL until the first client reads */
	uint64_t n_bytes;
	size_t hand; /* where the search for something to evict goes on */
};

void lines_init(struct lines *lines, memwatch *watcher);
void lines_fini(struct lines *lines);

/*
 * The first event after `since`: 1 and its line, valid until the next call; 0 when there is none; -errno.
 * `ret_missed` is how many between the two are gone.
 */
int lines_next(struct lines *lines, uint64_t since, const struct line **ret_line, uint64_t *ret_missed);

static inline const char *line_name(const struct line *line)
{
	return line->text.data + line->json_bytes;
}

#endif
