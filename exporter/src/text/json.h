/*
 * json.h -- the documents of the feeds, as docs/http.md describes them.
 */
#ifndef JSON_H
#define JSON_H

#include "text.h"

#include <memwatch/memwatch.h>

enum {
	JSON_SCHEMA = 2,
	JSON_VALUE_MAX = 64 * 1024, /* values longer than this are left out of an event, its previews stay */
	JSON_ELEMENTS_MAX = 16      /* changed items that an event lists decoded */
};

/* One event, without a line end. */
void json_event(struct text *text, const struct memwatch_event *event);

/* The same for a list of what is watched: of values longer than the previews only these. */
void json_event_short(struct text *text, const struct memwatch_event *event);

/* `"where":{…}`, a member. */
void json_where(struct text *text, const struct memwatch_where *where);

/* One region, with its last event; NULL: none is kept. */
void json_region(struct text *text, const struct memwatch_region_info *info, const struct memwatch_event *last);

/* `"name":`, with a comma before it unless it is the first of its object. */
void json_key(struct text *text, const char *name);

/* Members of an object. Empty strings and 0 of the `_or_null` kind mean unknown. */
void json_string(struct text *text, const char *name, const char *value);
void json_string_or_null(struct text *text, const char *name, const char *value);
void json_u64(struct text *text, const char *name, uint64_t value);
void json_u64_or_null(struct text *text, const char *name, uint64_t value);
void json_u64_string(struct text *text, const char *name, uint64_t value);

const char *json_values_text(enum memwatch_values values);

#endif
