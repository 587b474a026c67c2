/*
 * merge.c -- DESIGN: see merge.h. Runs on the worker under the engine's lock; owns nothing.
 *
 * Loss: ranges of large values that are changed back are told all the same; with more ranges than an event has,
 * the last spans the rest. A patch does not reach back over several changes: it is given up, and its readers take
 * the values.
 */
#include "merge.h"

#include <string.h>

static void add_range(struct memwatch_range *ranges, uint32_t *n, struct memwatch_range next)
{
	struct memwatch_range *last = *n ? &ranges[*n - 1] : NULL;
	if (last && (next.offset <= last->offset + last->size_bytes || *n == MEMWATCH_CHANGES_MAX))
		last->size_bytes =
			max_u64(last->offset + last->size_bytes, next.offset + next.size_bytes) - last->offset;
	else
		ranges[(*n)++] = next;
}

/* Are all bytes in the list that changed, and no others? */
static bool lists_all(const struct memwatch_event *event)
{
	uint64_t n_bytes = 0;
	for (uint32_t i = 0; i < event->n_changes; i++)
		n_bytes += event->changes[i].size_bytes;
	return n_bytes == event->changed_bytes;
}

/* Both lists are in order. */
void merge_ranges(struct event *event, const struct memwatch_event *earlier)
{
	struct memwatch_event *shown = &event->shown;
	struct memwatch_range mine[MEMWATCH_CHANGES_MAX];
	uint32_t n = 0, n_mine = shown->n_changes, i = 0, j = 0;
	uint64_t n_bytes = 0, end = 0;
	bool all = lists_all(shown) && lists_all(earlier);
	memcpy(mine, event->ranges, n_mine * sizeof *mine);
	while (i < n_mine || j < earlier->n_changes) {
		bool first = j == earlier->n_changes || (i < n_mine && mine[i].offset <= earlier->changes[j].offset);
		struct memwatch_range next = first ? mine[i++] : earlier->changes[j++];
		add_range(event->ranges, &n, next);
		end = max_u64(end, next.offset);
		n_bytes += max_u64(end, next.offset + next.size_bytes) - end;
		end = max_u64(end, next.offset + next.size_bytes);
	}
	shown->n_changes = n;
	shown->changed_bytes = all ? n_bytes : max_u64(shown->changed_bytes, earlier->changed_bytes);
}

static void compare_values(struct event *event, struct diff *diff, uint8_t *before)
{
	struct memwatch_event *shown = &event->shown;
	memcpy(before, shown->old_value, shown->old_bytes);
	diff_reset(diff, 0);
	diff_bytes(diff, shown->new_value, before, 0, (size_t)shown->new_bytes);
	shown->changed_bytes = diff->changed_bytes;
	shown->n_changes = diff->n_ranges;
	memcpy(event->ranges, diff->ranges, diff->n_ranges * sizeof *diff->ranges);
}

/* The last change's author may not have made the others. */
static void demote_author(struct event *event)
{
	struct memwatch_where *where = &event->shown.where;
	if (where->attribution != MEMWATCH_ATTRIBUTION_EXACT)
		return;
	struct memwatch_where writer = *where;
	*where = event->page_writer;
	where->attribution = MEMWATCH_ATTRIBUTION_PAGE;
	where->reason = writer.reason;
	*event_writer(event) = writer;
	event->page_writer.attribution = MEMWATCH_ATTRIBUTION_PAGE;
}

/* The value and the preview are the same bytes, where both are there. */
static void keep_old(const struct memwatch_event *shown, const struct memwatch_event *earlier)
{
	const uint8_t *to = shown->old_value ? shown->old_value : shown->old_preview;
	const uint8_t *from = earlier->old_value ? earlier->old_value : earlier->old_preview;
	if (to && from)
		memcpy((uint8_t *)(uintptr_t)to, from, shown->old_value ? shown->old_bytes : shown->preview_bytes);
}

void merge_event(struct event *event, const struct memwatch_event *earlier, struct diff *diff, uint8_t *before)
{
	struct memwatch_event *shown = &event->shown;
	shown->merged += earlier->merged + 1;
	shown->old_hash = earlier->old_hash;
	shown->patch = shown->patch_old = NULL;
	shown->patch_bytes = 0;
	keep_old(shown, earlier);
	if (shown->old_value && shown->new_value)
		compare_values(event, diff, before);
	else
		merge_ranges(event, earlier);
	demote_author(event);
}
