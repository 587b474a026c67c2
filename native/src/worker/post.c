/*
 * post.c -- DESIGN: events that somebody else found (adapters), for regions without memory; they go the same way to the
 * same sinks. Runs on its caller's thread, under the engine's lock.
 */
#include "post.h"

#include "deliver.h"
#include "resolver.h"

#include <string.h>

static uint32_t n_frames_of(const struct memwatch_post *post)
{
	return post->n_frames < MEMWATCH_STACK_MAX ? post->n_frames : MEMWATCH_STACK_MAX;
}

static void fill_where(struct event *event, const struct memwatch_post *post)
{
	struct memwatch_where *where = &event->shown.where;
	where->attribution = post->attribution;
	where->reason = post->reason;
	where = event_writer(event);
	where->thread_id = post->thread_id;
	where->thread_name = event_text(event, post->thread_name ? post->thread_name : "");
	where->n_frames = n_frames_of(post);
	for (uint32_t i = 0; i < where->n_frames; i++)
		event->frames[i] = (struct memwatch_frame){ event_text(event, post->frames[i].file),
							    event_text(event, post->frames[i].function),
							    post->frames[i].line };
}

static size_t room_for(const struct memwatch_post *post)
{
	size_t room =
		(post->backend ? strlen(post->backend) : 0) + (post->thread_name ? strlen(post->thread_name) : 0) + 64;
	for (uint32_t i = 0; i < n_frames_of(post); i++)
		room += strlen(post->frames[i].file) + strlen(post->frames[i].function) + 32;
	return room;
}

/* How much of its values the region's policy lets out. */
static size_t limit_of(const struct memwatch *watcher, const struct region *region)
{
	if (region->values == MEMWATCH_VALUES_FULL)
		return watcher->inline_threshold;
	return region->values == MEMWATCH_VALUES_PREVIEW ? watcher->preview_size : 0;
}

static const uint8_t *copy_value(struct event *event, const void *value, size_t n, size_t limit)
{
	return value && limit ? event_bytes(event, value, n) : NULL;
}

int post_event(struct engine *engine, struct region *region, const struct memwatch_post *post, uint64_t *ret_seq)
{
	struct memwatch *watcher = engine->watchers[region->watcher];
	size_t limit = limit_of(watcher, region);
	size_t n_old = min_u64(post->old_value ? post->old_bytes : 0, limit),
	       n_new = min_u64(post->new_value ? post->new_bytes : 0, limit);
	struct event *event = region_meta(region)
				      ? event_new(0, n_old + n_new + room_for(post) + strlen(region_name(region)) + 64)
				      : NULL;
	if (!event)
		return error_set(-ENOMEM, "no memory for the event");
	struct memwatch_event *shown = &event->shown;
	shown->region_id = region_id(region);
	shown->name = event_text(event, region_name(region));
	shown->backend = event_text(event, post->backend ? post->backend : "external");
	shown->values = region->values;
	shown->item_bytes = 1;
	shown->detected_ns = time_realtime_ns();
	shown->time_ns = post->time_ns ? post->time_ns : shown->detected_ns;
	shown->size_bytes = post->new_bytes;
	shown->old_preview = copy_value(event, post->old_value, n_old, limit);
	shown->new_preview = copy_value(event, post->new_value, n_new, limit);
	shown->old_bytes = n_old;
	shown->new_bytes = n_new;
	shown->preview_bytes = min_u64(limit, watcher->preview_size);
	if (region->values == MEMWATCH_VALUES_FULL) {
		shown->old_value = shown->old_preview;
		shown->new_value = shown->new_preview;
		shown->old_number = post->old_number;
		shown->new_number = post->new_number;
		region_set_posted(region, &post->new_number);
	}
	fill_where(event, post);
	region->detected++;
	watcher->ledger.detected++;
	deliver_event(watcher, region, event);
	resolver_announce(engine->resolver, watcher->log);
	*ret_seq = region->meta->last_seq;
	return 0;
}
