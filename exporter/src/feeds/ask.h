/*
 * ask.h -- what a client asks of the event feeds.
 */
#ifndef ASK_H
#define ASK_H

#include "lines.h"
#include "http/query.h"

#include <stdint.h>

/* ASK_LOOK_MS: how long a call looks for events that match, before others have their turn. */
enum { ASK_GLOBS_MAX = 8, ASK_VERDICTS = 512, ASK_LOOK_MS = 20, ASK_LOOK_EVERY = 32 };

/* Which events are wanted. Pointers lead into the request's target. */
struct filter {
	unsigned n_globs;
	struct {
		const char *text;
		size_t n_bytes;
	} globs[ASK_GLOBS_MAX];
	uint64_t from_ms, to_ms;
	/*
	 * Whether names match, by region, twice its id plus the verdict; a name is judged once, since it does not
	 * change.
	 */
	uint64_t verdicts[ASK_VERDICTS];
};

struct ask {
	uint64_t since;
	bool has_since, latest;
	const char *epoch; /* NULL: any */
	struct filter filter;
	uint64_t limit;
	int64_t wait_ms;
	bool newest_first;
	uint64_t before; /* exclusive; 0: from the newest */
};

/* NULL, or what is wrong. */
const char *ask_read(const struct query *query, struct ask *ret_ask);

bool ask_matches(struct filter *filter, uint64_t region_id, uint64_t time_ms, const char *name, size_t name_bytes);

static inline bool ask_matches_line(struct filter *filter, const struct line *line)
{
	return ask_matches(filter, line->region_id, line->time_ms, line_name(line), line->name_bytes);
}

#endif
