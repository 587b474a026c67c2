/*
 * held.c -- DESIGN: with max_rate an event that comes too early is held: the next one replaces it, tells what it told
 * (merge.c) and counts it as merged; when its time has come, or at a flush, it goes out. A held event counts as
 * coalesced until it does. What the region's condition filters meanwhile is not told by it; but an event that it is
 * merged with has it on the way from the old value to the new one. Runs on the worker under the engine's lock.
 *
 * Loss: without memory for the list of those that wait the event goes at once; without memory for the ranges of what
 * was filtered a merged event does not list them.
 */
#include "held.h"

#include "deliver.h"
#include "merge.h"

/* Has what was merged been changed back? */
static bool is_back(const struct memwatch_event *merged)
{
	bool same_hash = merged->old_hash && merged->old_hash == merged->new_hash;
	return merged->merged && (same_hash || (merged->old_value && !merged->n_changes));
}

static void drop_ranges(struct region_rules *rules)
{
	if (rules->behind)
		memwatch_event_unref(&rules->behind->shown);
	rules->behind = NULL;
}

bool held_is(const struct region *region)
{
	return region_rules(region) && region_rules(region)->held;
}

void held_release(struct engine *engine, struct region *region)
{
	struct memwatch *watcher = engine->watchers[region->watcher];
	struct region_rules *rules = region_rules(region);
	struct event *event = rules ? rules->held : NULL;
	if (!event)
		return;
	rules->held = NULL;
	rules->due_ns = time_monotonic_ns() + rules->interval_ns;
	drop_ranges(rules);
	region->meta->coalesced--;
	watcher->ledger.coalesced--;
	if (is_back(&event->shown)) {
		rules->n_behind = rules->n_told = 0;
		region->unchanged++;
		watcher->ledger.unchanged++;
		memwatch_event_unref(&event->shown);
		return;
	}
	deliver_event(watcher, region, event);
}

void held_pass_by(struct region *region, struct event *ranges)
{
	struct region_rules *rules = region_rules(region);
	rules->n_behind++;
	if (!ranges)
		return;
	if (rules->behind)
		merge_ranges(ranges, &rules->behind->shown);
	drop_ranges(rules);
	rules->behind = ranges;
}

/* `event` then tells what the one that waits told, and what was filtered between the two. */
static void merge_held(struct engine *engine, const struct region *region, struct event *event)
{
	const struct region_rules *rules = region_rules(region);
	const struct memwatch_event *earlier = &rules->held->shown;
	if (rules->behind)
		merge_ranges(rules->held, &rules->behind->shown);
	if (event->shown.old_excerpt) {
		excerpt_merge(&engine->pass.excerpt, earlier, &event->shown, region->shadow);
		excerpt_set(&engine->pass.excerpt, event);
	}
	merge_event(event, earlier, &engine->diff, engine->pass.head); /* which is as large as the old value */
	memwatch_event_unref(earlier);
}

bool held_put(struct engine *engine, struct region *region, struct event *event)
{
	struct region_rules *rules = region_rules(region);
	if (!rules || !rules->interval_ns)
		return false;
	uint64_t now_ns = time_monotonic_ns();
	if (!rules->held && (now_ns >= rules->due_ns || !region_list_add(&engine->held, region))) {
		rules->due_ns = now_ns + rules->interval_ns;
		return false;
	}
	if (rules->held)
		merge_held(engine, region, event);
	drop_ranges(rules);
	rules->n_told += (rules->held ? rules->n_behind : 0) + 1;
	rules->held = event;
	rules->n_behind = 0;
	region->meta->coalesced++;
	engine->watchers[region->watcher]->ledger.coalesced++;
	return true;
}

uint64_t held_due(struct engine *engine, bool all)
{
	uint64_t now_ns = time_monotonic_ns(), next_ns = 0;
	size_t kept = 0;
	for (size_t i = 0; i < engine->held.n; i++) {
		struct region *region = region_by_ticket(&engine->regions, engine->held.tickets[i]);
		const struct region_rules *rules = region ? region_rules(region) : NULL;
		if (!rules || !rules->held)
			continue;
		if (all || rules->due_ns <= now_ns) {
			held_release(engine, region);
			continue;
		}
		next_ns = next_ns ? min_u64(next_ns, rules->due_ns) : rules->due_ns;
		engine->held.tickets[kept++] = engine->held.tickets[i];
	}
	engine->held.n = kept;
	return next_ns;
}
