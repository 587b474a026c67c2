/*
 * attribute.c -- DESIGN: an event's author: the note that explains it, or why there is none. Runs on the worker under
 * the engine's lock.
 */
#define _GNU_SOURCE
#include "attribute.h"

#include "guard.h"
#include "../base/location.h"
#include "../base/names.h"
#include "../base/stack.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void read_name(struct thread_name *name)
{
	char path[64];
	ssize_t n = -1;
	snprintf(path, sizeof path, "/proc/self/task/%d/comm", name->thread_id);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, name->text, sizeof name->text - 1);
		close(fd);
	}
	if (n > 0)
		name->text[n - 1] = 0; /* without the newline */
	else
		names_find(name->thread_id, name->text);
}

/* As the system has it, read once a pass; of one that has ended as it was at its first note. */
static const char *thread_name(struct engine *engine, int32_t thread_id)
{
	struct thread_name *name = &engine->pass.names[(uint32_t)thread_id % THREAD_NAMES];
	if (name->thread_id != thread_id) {
		name->thread_id = thread_id;
		read_name(name);
	}
	return name->text;
}

/* Only the region can have opened its pages, and all that changed is one range: whoever opened them wrote it. */
static bool opener_wrote_all(const struct engine *engine, const struct region *region)
{
	const struct memwatch_range *range = &engine->diff.ranges[0];
	struct span pages = span_of(region->start + range->offset, range->size_bytes);
	return engine->diff.n_ranges == 1 && pages.start >= region->start && pages.end <= region_end(region);
}

/* The pages are armed, no store and no system call of ours has opened them, and they changed. */
bool attribute_is_foreign(const struct engine *engine, const struct region *region)
{
	uint64_t changed = region->start + engine->diff.ranges[0].offset;
	const struct backend *backend = engine_backend_of(engine, changed);
	return region->shared && backend && !backend->turns && !span_list_holds(&engine->pass.written, changed);
}

/*
 * Others write to shared memory without a trace. So a store of ours is the author of all of a change only when that is
 * in one place; numbers whose bytes are equal in part are.
 */
static bool is_one_place(const struct diff *diff)
{
	for (uint32_t i = 1; i < diff->n_ranges; i++)
		if (diff->ranges[i].offset - diff->ranges[i - 1].offset - diff->ranges[i - 1].size_bytes >= 8)
			return false;
	return true;
}

/* Why nobody is known to have written what changed first in the region. */
static enum memwatch_reason reason_of(struct engine *engine, const struct region *region)
{
	uint64_t changed = region->start + engine->diff.ranges[0].offset;
	const struct backend *backend = engine_backend_of(engine, changed);
	if (backend && backend->turns)
		return backend->silent_reason;
	if (attribute_is_foreign(engine, region))
		return MEMWATCH_REASON_FOREIGN;
	if (atomic_load(&engine->ring.dropped) != engine->pass.dropped_before)
		return MEMWATCH_REASON_RING_FULL;
	if (backend && backend->silent_reason)
		return backend->silent_reason;
	if (!engine->source)
		return engine->no_source;
	if (span_list_holds(&engine->pass.unseen, changed) || page_set_has(engine->early, changed))
		return MEMWATCH_REASON_UNKNOWN;
	enum memwatch_reason reason = engine->source->absence(engine->pass.last_full_ns);
	/* A thread that stands still while it hands over its note holds back those that came after it. */
	bool may_be_noted = ring_depth_guess(&engine->ring) != 0;
	bool doubtful = may_be_noted || !opener_wrote_all(engine, region);
	return reason == MEMWATCH_REASON_KERNEL && doubtful ? MEMWATCH_REASON_UNKNOWN : reason;
}

static void fill_where(struct engine *engine, struct event *event, const struct taken *note)
{
	bool ip_is_after = note->point != 0;
	struct memwatch_where *where = event_writer(event);
	where->fault_ip = note->ip;
	where->fault_address = note->address;
	where->thread_id = note->thread_id;
	where->thread_name = event_text(event, thread_name(engine, note->thread_id));
	where->n_frames = location_frames(note->location, event->frames, MEMWATCH_STACK_MAX);
	event->named_ip = note->ip ? note->ip - ip_is_after : 0;
	event->stack = note->ip ? stack_hold(note->time_ns, note->thread_id) : 0;
}

/* What a guard has seen comes first: its values prove whose they are. */
static const struct taken *ask(struct engine *engine, const struct region *region,
			       enum memwatch_attribution *ret_attribution, bool *ret_own)
{
	const struct taken *note = guard_holds(region) ? guard_find(engine, region) : NULL;
	if (!note)
		return who_find(&engine->who, region, &engine->diff, ret_attribution, ret_own);
	*ret_attribution = MEMWATCH_ATTRIBUTION_EXACT;
	return note;
}

/*
 * The note for what the diff has just found. A page that was armed again can be written before the diff reads it; such
 * a write's note is in the ring by now, since it was taken before the store ran. So a change that no note explains
 * exactly looks there once more. What is found there proves nothing: its store may still be to come.
 */
static const struct taken *find_note(struct engine *engine, const struct region *region,
				     enum memwatch_attribution *ret_attribution, bool *ret_own)
{
	const struct taken *note = ask(engine, region, ret_attribution, ret_own);
	if (*ret_attribution == MEMWATCH_ATTRIBUTION_EXACT)
		return note;
	who_drain(&engine->who, &engine->ring);
	if (engine->who.n == engine->who.n_indexed)
		return note;
	who_index(&engine->who);
	return ask(engine, region, ret_attribution, ret_own);
}

/* The note that explains the change, or NULL with the reason. */
static const struct taken *ask_notes(struct engine *engine, const struct region *region, struct memwatch_where *where)
{
	bool own = false;
	const struct taken *note = find_note(engine, region, &where->attribution, &own);
	if (note && attribute_is_foreign(engine, region)) /* it wrote elsewhere, or later */
		note = NULL;
	if (!note)
		where->attribution = MEMWATCH_ATTRIBUTION_NONE;
	else if (region->shared && where->attribution == MEMWATCH_ATTRIBUTION_EXACT && !is_one_place(&engine->diff))
		where->attribution = MEMWATCH_ATTRIBUTION_PAGE;
	if (!note) {
		where->reason = own ? MEMWATCH_REASON_OWN : reason_of(engine, region);
		engine->pass.silent_change |= where->reason != MEMWATCH_REASON_POLLING &&
					      where->reason != MEMWATCH_REASON_FOREIGN;
	}
	if (where->attribution != MEMWATCH_ATTRIBUTION_EXACT)
		guard_suggest(engine, region);
	return note;
}

void attribute_event(struct engine *engine, struct memwatch *watcher, const struct region *region,
		     const struct author *author, struct event *event)
{
	struct memwatch_where *where = &event->shown.where;
	where->attribution = author->attribution;
	where->reason = author->reason;
	const struct taken *note = author->by_notes ? ask_notes(engine, region, where) : author->note;
	event->shown.detected_ns = event->shown.time_ns = time_realtime_ns();
	if (note)
		fill_where(engine, event, note);
	if (note && (!author->by_notes || where->attribution == MEMWATCH_ATTRIBUTION_EXACT)) {
		event->shown.time_ns = note->time_ns; /* another write's time may be long before this change */
		histogram_add(&watcher->latency,
			      event->shown.detected_ns - min_u64(note->time_ns, event->shown.detected_ns));
	}
}
