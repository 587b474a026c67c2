/*
 * event.c -- DESIGN: see event.h. The worker makes events; any thread may hold and release them.
 */
#include "event.h"
#include "stack.h"

#include <string.h>

struct event *event_new(size_t n_ranges, size_t room)
{
	size_t head = sizeof(struct event) + n_ranges * sizeof(struct memwatch_range);
	size_t size_bytes = head + room + 64;
	struct event *event = size_bytes > UINT32_MAX ? NULL : mem_alloc(size_bytes);
	if (!event)
		return NULL;
	atomic_init(&event->n_refs, 1);
	event->size_bytes = (uint32_t)size_bytes;
	event->free = (uint8_t *)event + head;
	event->end = (uint8_t *)event + size_bytes;
	struct memwatch_event *shown = &event->shown;
	shown->struct_bytes = sizeof *shown;
	shown->changes = event->ranges;
	shown->name = shown->format = "";
	shown->where = event->page_writer = (struct memwatch_where){ .frames = event->frames,
								     .thread_name = "",
								     .symbol = "",
								     .object = "",
								     .native = { "", "", 0 },
								     .libc_function = "" };
	return event;
}

struct memwatch_where *event_writer(struct event *event)
{
	struct memwatch_where *where = &event->shown.where;
	if (where->attribution != MEMWATCH_ATTRIBUTION_PAGE)
		return where;
	event->page_writer.attribution = MEMWATCH_ATTRIBUTION_PAGE;
	where->page_writer = &event->page_writer;
	return &event->page_writer;
}

void *event_room(struct event *event, size_t n)
{
	uint8_t *at = event->free;
	n = (n + 7) & ~(size_t)7;
	if ((size_t)(event->end - at) < n)
		return NULL;
	event->free = at + n;
	return at;
}

void *event_bytes(struct event *event, const void *bytes, size_t n)
{
	void *at = event_room(event, n);
	return at ? memcpy(at, bytes, n) : NULL;
}

const char *event_text(struct event *event, const char *text)
{
	const char *copy = *text ? event_bytes(event, text, strlen(text) + 1) : NULL;
	return copy ? copy : "";
}

void memwatch_event_ref(const struct memwatch_event *event)
{
	if (event)
		atomic_fetch_add_explicit(&((struct event *)(uintptr_t)event)->n_refs, 1, memory_order_relaxed);
}

void memwatch_event_unref(const struct memwatch_event *event)
{
	struct event *block = (struct event *)(uintptr_t)event;
	/* Pairs with the other releases: the last one sees all that was done under the others. */
	if (block && atomic_fetch_sub_explicit(&block->n_refs, 1, memory_order_acq_rel) == 1) {
		stack_release(block->stack);
		mem_free(block);
	}
}

const char *memwatch_attribution_text(enum memwatch_attribution attribution)
{
	static const char *const texts[] = { "none", "page", "exact" };
	return texts[attribution <= MEMWATCH_ATTRIBUTION_EXACT ? attribution : 0];
}

const char *memwatch_reason_text(enum memwatch_reason reason)
{
	static const char *const texts[MEMWATCH_REASONS] = { "",          "kernel",  "throttled", "unavailable",
							     "ring-full", "off",     "traced",    "blocked",
							     "polling",   "unknown", "own",       "foreign" };
	return reason < MEMWATCH_REASONS ? texts[reason] : "unknown";
}

const char *memwatch_drop_text(enum memwatch_drop drop)
{
	static const char *const texts[MEMWATCH_DROPS] = { "ring_full", "no_memory", "vanished", "unreadable" };
	return drop < MEMWATCH_DROPS ? texts[drop] : "";
}
