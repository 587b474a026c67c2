/*
 * deliver.c -- DESIGN: an event goes to the sinks: it gets its number, the keys of its versions, and its place in the
 * history and in the ledger. Under the engine's lock, on the worker or the thread that posts an event or removes a
 * region.
 *
 * Loss: none here; the log gives up its oldest.
 */
#include "deliver.h"

#include "resolver.h"

/* Where changes that no event tells came before this one, the version before them is not its old value. */
static void fill_keys(const struct memwatch *watcher, const struct region *region, struct event *event, uint64_t n_told)
{
	struct memwatch_event *shown = &event->shown;
	if (region->values != MEMWATCH_VALUES_FULL || region->size_bytes <= watcher->inline_threshold ||
	    region->flags & MEMWATCH_REGION_HASHED || !watcher->history.budget)
		return;
	if (region->meta->unreported <= n_told && history_has(region, region_last_seq(region)))
		history_key(shown->region_id, region_last_seq(region), shown->storage_key_old);
	history_key(shown->region_id, shown->seq, shown->storage_key_new);
}

/* A patch is no good when changes before it were told by no event: they were filtered, merged, or found no memory. */
static void drop_partial_patch(const struct region *region, struct event *event)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) -- whoever has an event has seen to the meta */
	if (region->meta->unreported <= 1)
		return;
	event->shown.patch = event->shown.patch_old = NULL;
	event->shown.patch_bytes = 0;
}

/* How many changes the event tells, and how many came after these: what was filtered while it waited. */
static uint64_t take_told(const struct region *region, uint64_t *ret_behind)
{
	struct region_rules *rules = region_rules(region);
	uint64_t n_told = rules && rules->n_told ? rules->n_told : 1;
	*ret_behind = rules ? rules->n_behind : 0;
	if (rules)
		rules->n_told = rules->n_behind = 0;
	return n_told;
}

/* Only holders of the engine's lock append, so its seq is known before. */
void deliver_event(struct memwatch *watcher, struct region *region, struct event *event)
{
	struct region_meta *meta = region->meta;
	uint64_t n_behind, n_told = take_told(region, &n_behind);
	event->shown.seq = watcher->log->newest + 1;
	if (event->shown.kind == MEMWATCH_EVENT_CHANGE && region->start)
		fill_keys(watcher, region, event, n_told + n_behind);
	drop_partial_patch(region, event);
	if (!event->shown.excerpt_bytes)
		event->shown.old_excerpt = event->shown.new_excerpt = NULL;
	resolver_name(watcher->engine->resolver, event);
	if (region->start)
		history_name(&watcher->history, region, event, n_behind);
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) -- whoever has an event has seen to the meta */
	meta->last_seq = event->shown.seq;
	meta->last_time_ns = event->shown.time_ns;
	meta->delivered++;
	watcher->ledger.delivered++;
	watcher->attribution_by[event->shown.where.attribution]++;
	watcher->reason_by[event->shown.where.reason]++;
	log_append(watcher->log, event);
}
