/*
 * ask.c -- DESIGN: reads the parameters of /api/v1/events.
 *
 * Pure functions, called on the HTTP thread and by the fuzzer. What is wrong with a request is a sentence.
 */
#include "ask.h"

#include <errno.h>
#include <string.h>

enum { PAGE_EVENTS_MAX = 1000, PAGE_EVENTS_DEFAULT = 100, WAIT_MAX_MS = 30000 };

static const char *read_filter(const struct query *query, struct filter *ret_filter)
{
	struct filter filter = { .to_ms = UINT64_MAX };
	const char *from = query_find(query, "from_ms"), *to = query_find(query, "to_ms");
	if (from && query_u64(from, QUERY_MS_MAX, &filter.from_ms) < 0)
		return "from_ms must be milliseconds since 1970.";
	if (to && query_u64(to, QUERY_MS_MAX, &filter.to_ms) < 0)
		return "to_ms must be milliseconds since 1970.";
	for (unsigned i = 0; i < query->n_parameters; i++) {
		if (strcmp(query->parameters[i].name, "name") != 0)
			continue;
		if (filter.n_globs == ASK_GLOBS_MAX)
			return "name may occur up to eight times.";
		if (query->parameters[i].value_bytes > MEMWATCH_NAME_MAX)
			return "name may have up to 255 bytes.";
		filter.globs[filter.n_globs].text = query->parameters[i].value;
		filter.globs[filter.n_globs++].n_bytes = query->parameters[i].value_bytes;
	}
	*ret_filter = filter;
	return NULL;
}

/* Seconds, with up to three decimals, as milliseconds. */
static int read_wait(const char *text, int64_t *ret_ms)
{
	int64_t ms = 0, place = 100;
	if (*text < '0' || *text > '9')
		return -EINVAL;
	for (; *text >= '0' && *text <= '9'; text++) {
		ms = ms * 10 + (*text - '0') * 1000;
		if (ms > WAIT_MAX_MS)
			return -ERANGE;
	}
	if (*text == '.') {
		for (text++; *text >= '0' && *text <= '9'; text++, place /= 10)
			ms += (*text - '0') * place;
	}
	*ret_ms = ms;
	return *text == '\0' && ms <= WAIT_MAX_MS ? 0 : -EINVAL;
}

static const char *read_order(const struct query *query, struct ask *ask)
{
	const char *order = query_find(query, "order"), *before = query_find(query, "before");
	ask->newest_first = order && strcmp(order, "newest") == 0;
	if (order && !ask->newest_first && strcmp(order, "oldest") != 0)
		return "order must be oldest or newest.";
	if (before && !ask->newest_first)
		return "before goes with order=newest: from the oldest on, since says where to go on.";
	if (before && (query_u64(before, QUERY_SEQ_MAX, &ask->before) < 0 || ask->before == 0))
		return "before must be a seq.";
	if (ask->wait_ms > 0 && ask->newest_first)
		return "order=newest does not wait: take its next as since, and wait with order=oldest.";
	return NULL;
}

const char *ask_read(const struct query *query, struct ask *ret_ask)
{
	const char *since = query_find(query, "since"), *limit = query_find(query, "limit"),
		   *wait = query_find(query, "wait");
	struct ask ask = { .limit = PAGE_EVENTS_DEFAULT, .epoch = query_find(query, "epoch") };
	const char *wrong = read_filter(query, &ask.filter);
	if (wrong)
		return wrong;
	if (since) {
		ask.has_since = true;
		ask.latest = strcmp(since, "latest") == 0;
		if (!ask.latest && query_u64(since, QUERY_SEQ_MAX, &ask.since) < 0)
			return "since must be a seq, or latest.";
	}
	if (ask.epoch && (strlen(ask.epoch) != 16 || strspn(ask.epoch, "0123456789abcdef") != 16))
		return "epoch must be sixteen hexadecimal digits.";
	if (limit && (query_u64(limit, PAGE_EVENTS_MAX, &ask.limit) < 0 || ask.limit == 0))
		return "limit must be 1 to 1000.";
	if (wait && read_wait(wait, &ask.wait_ms) < 0)
		return "wait must be seconds, 0 to 30.";
	wrong = read_order(query, &ask);
	if (wrong)
		return wrong;
	*ret_ask = ask;
	return NULL;
}

static bool name_matches(const struct filter *filter, const char *name, size_t name_bytes)
{
	for (unsigned i = 0; i < filter->n_globs; i++) {
		if (query_glob(filter->globs[i].text, filter->globs[i].n_bytes, name, name_bytes))
			return true;
	}
	return filter->n_globs == 0;
}

bool ask_matches(struct filter *filter, uint64_t region_id, uint64_t time_ms, const char *name, size_t name_bytes)
{
	if (time_ms < filter->from_ms || time_ms >= filter->to_ms)
		return false;
	uint64_t *verdict = &filter->verdicts[region_id % ASK_VERDICTS];
	if (*verdict >> 1 != region_id || region_id == 0)
		*verdict = region_id << 1 | name_matches(filter, name, name_bytes);
	return *verdict & 1;
}
