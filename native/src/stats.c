/*
 * stats.c -- DESIGN: gathers what the parts count. Under the engine's lock, so that a ledger is seen whole; scrapes
 * take it for microseconds.
 */
#include "handle.h"
#include "lifetime.h"
#include "base/location.h"
#include "watch.h"
#include "base/structs.h"

#include "fault/fault.h"
#include "worker/guard.h"
#include "worker/precise.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define POLLED_MUCH_BYTES ((uint64_t)256 << 20) /* from here on a round takes seconds: worth a word */

static void fill_watcher(struct memwatch *watcher, struct memwatch_stats *stats)
{
	stats->backend = watcher->backend->name;
	stats->epoch = watcher->epoch;
	stats->start_time_ns = watcher->start_time_ns;
	stats->n_regions = watcher->n_regions;
	if (!watcher->follows_forks)
		stats->forks_unwatched = atomic_load(&watcher->engine->n_forks) - watcher->forks_before;
	stats->tracked_bytes = watcher->tracked_bytes;
	stats->ledger = watcher->ledger;
	memcpy(stats->dropped_by, watcher->dropped_by, sizeof stats->dropped_by);
	memcpy(stats->attribution_by, watcher->attribution_by, sizeof stats->attribution_by);
	memcpy(stats->reason_by, watcher->reason_by, sizeof stats->reason_by);
	stats->latency = watcher->latency;
	stats->history.bytes = watcher->history.bytes;
	stats->history.budget = watcher->history.budget;
	stats->history.versions = watcher->history.n_versions;
	stats->history.evicted = watcher->history.n_evicted;
	log_stats(watcher->log, stats);
}

static void fill_ring(struct ring *ring, struct memwatch_stats *stats)
{
	stats->ring.capacity = ring->capacity;
	stats->ring.depth = ring_depth_guess(ring);
	stats->ring.high_water = atomic_load(&ring->high_water);
	stats->ring.dropped = atomic_load(&ring->dropped);
	stats->faults = atomic_load(&ring->head) + stats->ring.dropped;
	stats->dropped_by[MEMWATCH_DROP_RING_FULL] = stats->ring.dropped;
}

/* Why authors are not known, or what to know. */
static void fill_note(const struct memwatch *watcher, struct memwatch_stats *stats)
{
	struct backend_notes notes;
	backends_notes(&notes);
	const struct backend_note *first = &notes.backends[0];
	const char *prefix = watcher->backend->turns ? "memory is polled: " : "", *note = "";
	char late[80] = "";
	if (stats->polled_bytes >= POLLED_MUCH_BYTES)
		snprintf(late, sizeof late, "%s%" PRIu64 " MiB are polled: a change may be told up to %u s late",
			 watcher->backend->turns ? "; " : "", stats->polled_bytes >> 20,
			 stats->poll_round_ms / 1000 + 1);
	if (watcher->backend->turns)
		note = first->usable || !first->probed ? "the backend was asked for" : first->text;
	else if (watcher->backend->source)
		note = watcher->engine->budget == 0 ? "switched off: attribution_budget is 0" : notes.source;
	snprintf(stats->attribution_note, sizeof stats->attribution_note, "%s%.150s%s", prefix, note, late);
}

static void fill_source(const struct engine *engine, struct memwatch_stats *stats)
{
	struct source_stats source = { 0 };
	if (engine->source)
		engine->source->stats(&source);
	stats->attribution_available = engine->source && source.available;
	stats->attribution_filtered = engine->source && source.filtered;
	stats->signals = source.signals;
	stats->signals_ours = source.ours;
	stats->signals_foreign = source.foreign;
	stats->stepped = source.stepped;
	stats->throttled_ns = source.throttled_ns;
	stats->handler_lost = source.handler_lost;
	stats->attribution_budget = engine->budget;
}

static void fill_polled(const struct engine *engine, struct memwatch_stats *stats)
{
	const struct backend *poll = engine->fallback;
	stats->poll_budget = engine->poll_budget;
	stats->polled_bytes = atomic_load(&poll->pages->n_pages) * PAGE_BYTES;
	stats->poll_round_ms = (uint32_t)min_u64(poll->turns->round_ns(engine->poll_budget) / NS_PER_MS, UINT32_MAX);
}

static void fill_engine(struct engine *engine, struct memwatch_stats *stats)
{
	fill_ring(&engine->ring, stats);
	fill_source(engine, stats);
	for (unsigned b = 0; b < engine->n_backends; b++) {
		const struct backend *backend = engine->backends[b];
		stats->armed_pages += atomic_load(&backend->pages->n_pages);
		stats->handler_lost += backend->handler_lost ? backend->handler_lost() : 0;
	}
	stats->passes = atomic_load(&engine->n_passes);
	stats->pages_written = atomic_load(&engine->n_pages_written);
	stats->window_ms = (uint32_t)(engine->window_ns / NS_PER_MS);
	stats->sweep_ms = (uint32_t)(atomic_load(&engine->sweep_ns) / NS_PER_MS);
	fill_polled(engine, stats);
	stats->stack_depth = fault_depth();
	stats->native_memory_bytes = mem_total();
	precise_stats(engine, stats);
	guard_stats(engine, stats);
	location_stats(&stats->locations, &stats->locations_dropped);
}

int memwatch_stats_get_sized(memwatch *watcher, struct memwatch_stats *ret_stats, size_t struct_bytes)
{
	struct memwatch_stats stats = { 0 };
	int error = watch_need(ret_stats, "the place for the stats");
	if (!error)
		error = watch_lock(watcher);
	if (error)
		return error;
	fill_watcher(watcher, &stats);
	fill_engine(watcher->engine, &stats);
	fill_note(watcher, &stats);
	watch_unlock(watcher);
	memwatch_struct_write(ret_stats, struct_bytes, &stats, sizeof stats);
	return 0;
}

/* Another thread may open a watcher meanwhile, which writes them anew. */
static void read_notes(memwatch *watcher, struct backend_notes *ret_notes)
{
	if (!watcher) {
		lifetime_probe(ret_notes);
		return;
	}
	engine_lock(watcher->engine);
	backends_notes(ret_notes);
	engine_unlock(watcher->engine);
}

int memwatch_backend_list_sized(memwatch *watcher, struct memwatch_backend_info *infos, size_t n, size_t struct_bytes)
{
	struct backend_notes notes;
	int error = n ? watch_need(infos, "the list") : 0;
	if (!error && watcher)
		error = handle_enter(watcher);
	if (error)
		return error;
	read_notes(watcher, &notes);
	for (size_t b = 0; b < n && b < notes.n; b++) {
		const struct backend_note *note = &notes.backends[b];
		struct memwatch_backend_info info = { .name = note->name,
						      .probed = note->probed,
						      .usable = note->usable };
		info.chosen = watcher && strcmp(watcher->backend->name, note->name) == 0;
		snprintf(info.note, sizeof info.note, "%s",
			 note->probed ? note->text : "not probed: another was taken");
		memwatch_struct_write(structs_at(infos, b, struct_bytes), struct_bytes, &info, sizeof info);
	}
	if (watcher)
		handle_leave(watcher);
	return (int)notes.n;
}
