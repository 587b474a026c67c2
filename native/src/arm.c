/*
 * arm.c -- DESIGN: the pages of regions that come and go, on their callers' threads, under the engine's lock. A page
 * that is armed already is left alone, since arming it again would lose what was written to it.
 */
#define _GNU_SOURCE
#include "arm.h"

#include "base/memory.h"

static int arm_with(struct engine *engine, const struct backend *backend, struct span span)
{
	bool first = backend->turns && !atomic_load(&backend->pages->n_pages);
	int error = backend->arm(span);
	if (first) /* the worker may sleep for long: nothing had a turn */
		ring_kick(&engine->ring);
	if (!error && engine->source && backend->source == engine->source)
		engine->source->pages_changed(span, true);
	return error;
}

/* Arms what the backend does not hold of the span. */
static int arm_missing(struct engine *engine, const struct backend *backend, struct span span)
{
	struct span run = { 0 };
	int error = 0;
	for (uint64_t at = span.start; at < span.end && !error; at = run.end) {
		if (!page_set_next(backend->pages, at, span.end, &run))
			run = (struct span){ span.end, span.end };
		if (at < run.start)
			error = arm_with(engine, backend, (struct span){ at, run.start });
	}
	return error;
}

/* Arms pages that nobody watches yet: by the watcher's backend, or, where it cannot, by polling. */
static int arm_fresh(struct engine *engine, const struct memwatch *watcher, struct region *region, struct span span)
{
	const struct backend *backend = watcher->backend;
	if (arm_with(engine, backend, span) == 0)
		return 0;
	if (backend != engine->fallback)
		region->flags |= REGION_POLLED;
	return arm_missing(engine, engine->fallback, span);
}

/*
 * The first page at or after `from` that some backend holds already; its run's end. What is only polled counts when
 * `polled`.
 */
static bool next_armed(const struct engine *engine, bool polled, uint64_t from, uint64_t end, struct span *ret_run)
{
	bool found = false;
	for (unsigned b = 0; b < engine->n_backends; b++) {
		struct span run;
		if ((polled || !engine->backends[b]->turns) &&
		    page_set_next(engine->backends[b]->pages, from, end, &run) &&
		    (!found || run.start < ret_run->start)) {
			*ret_run = run;
			found = true;
		}
	}
	return found;
}

/* By the backend that the region asks for. One that is polled and armed at once is seen by either. */
static int arm_as_asked(struct engine *engine, struct region *region, struct span span)
{
	const struct backend *backend = engine->backends[region->backend - 1];
	struct span run;
	for (unsigned b = 0; !backend->turns && b < engine->n_backends; b++)
		if (engine->backends[b] != backend && !engine->backends[b]->turns &&
		    page_set_next(engine->backends[b]->pages, span.start, span.end, &run))
			return -EBUSY;
	return arm_missing(engine, backend, span);
}

static int arm_private(struct engine *engine, const struct memwatch *watcher, struct region *region)
{
	struct span span = span_of(region->start, region->size_bytes), run = { 0 };
	bool polled = watcher->backend->turns;
	int error = 0;
	if (region->backend)
		return arm_as_asked(engine, region, span);
	for (uint64_t at = span.start; at < span.end && !error; at = run.end) {
		if (!next_armed(engine, polled, at, span.end, &run))
			run = (struct span){ span.end, span.end };
		if (at < run.start)
			error = arm_fresh(engine, watcher, region, (struct span){ at, run.start });
	}
	return error;
}

/*
 * What another process or mapping writes to shared memory leaves no trace on our pages: they are polled as well. Pages
 * that are armed and not polled by now are known to be private.
 */
static int arm_shared(struct engine *engine, const struct memwatch *watcher, struct region *region)
{
	struct span span = span_of(region->start, region->size_bytes), run;
	uint64_t at = span.start;
	if ((region->backend ? engine->backends[region->backend - 1] : watcher->backend)->turns)
		return 0;
	while (at < span.end && next_armed(engine, false, at, span.end, &run) && run.start == at &&
	       !page_set_next(engine->fallback->pages, at, min_u64(run.end, span.end), &(struct span){ 0 }))
		at = run.end;
	if (at >= span.end || !memory_is_shared(region->start, region->size_bytes))
		return 0;
	region->shared = true;
	return arm_missing(engine, engine->fallback, span);
}

int arm_region(struct engine *engine, const struct memwatch *watcher, struct region *region)
{
	int error = arm_shared(engine, watcher, region);
	return error ? error : arm_private(engine, watcher, region);
}

static void disarm_span(struct engine *engine, struct span span)
{
	for (unsigned b = 0; b < engine->n_backends; b++) {
		const struct backend *backend = engine->backends[b];
		struct span run;
		for (uint64_t at = span.start; page_set_next(backend->pages, at, span.end, &run); at = run.end) {
			backend->disarm(run);
			if (engine->source && backend->source == engine->source)
				engine->source->pages_changed(run, false);
		}
	}
}

struct gaps {
	struct engine *engine;
	uint64_t at;
};

static void disarm_gap(struct region *region, void *arg)
{
	struct gaps *gaps = arg;
	if (page_floor(region->start) > gaps->at)
		disarm_span(gaps->engine, (struct span){ gaps->at, page_floor(region->start) });
	gaps->at = max_u64(gaps->at, page_ceil(region_end(region)));
}

void arm_drop_unwatched(struct engine *engine, struct span span)
{
	struct gaps gaps = { engine, span.start };
	region_overlapping(&engine->regions, span.start, span.end, disarm_gap, &gaps);
	if (gaps.at < span.end)
		disarm_span(engine, (struct span){ gaps.at, span.end });
}
