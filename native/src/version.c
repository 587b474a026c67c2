/*
 * version.c -- DESIGN: the public side of the history. On its caller's thread, under the engine's lock for as long as a
 * copy takes.
 */
#include "handle.h"
#include "watch.h"
#include "base/structs.h"

#include <string.h>

/* The region, with the lock, when its versions can be looked at. */
static struct region *hold_versions(memwatch *watcher, uint64_t id, int *ret_error)
{
	struct region *region = watch_hold_values(watcher, id, ret_error);
	if (region && (!region->start || region->flags & MEMWATCH_REGION_HASHED)) {
		*ret_error = error_set(-ENOENT, "no versions of \"%s\" are kept", region_name(region));
		watch_unlock(watcher);
		region = NULL;
	}
	return region;
}

/* An event that the history names may not be shown yet: see resolver.h. */
static void await_names(memwatch *watcher, uint64_t seq)
{
	enum { PATIENCE_MS = 2000 };
	log_await(watcher->log, seq, PATIENCE_MS);
}

static int key_parse(const char *key, uint64_t *ret_id, uint64_t *ret_seq)
{
	int error = watch_need(key, "the key");
	return error ? error : history_key_parse(key, ret_id, ret_seq);
}

int64_t memwatch_load(memwatch *watcher, const char *key, void *buffer, size_t size)
{
	uint64_t id, seq;
	int error = key_parse(key, &id, &seq);
	if (!error && size)
		error = watch_need(buffer, "the buffer");
	const struct region *region = error ? NULL : hold_versions(watcher, id, &error);
	if (!region)
		return error;
	int64_t size_bytes = (int64_t)region->size_bytes;
	error = history_load(region, seq, buffer, (size_t)min_u64(size, region->size_bytes));
	watch_unlock(watcher);
	return error ? error : size_bytes;
}

/* Can anything be known of the region after that event? */
static int check_seq(memwatch *watcher, const struct region *region, uint64_t seq)
{
	uint64_t newest = log_newest(watcher->log), added = region->added_seq;
	if (seq > newest && seq != UINT64_MAX)
		return error_set(-ENOENT, "there is no event %llu yet; the newest is %llu", (unsigned long long)seq,
				 (unsigned long long)newest);
	if (seq && seq < added)
		return error_set(-ENOENT, "\"%s\" was not watched then: it is since event %llu", region_name(region),
				 (unsigned long long)added);
	return 0;
}

int memwatch_key_known(memwatch *watcher, const char *key)
{
	uint64_t id, seq;
	int error = key_parse(key, &id, &seq);
	if (!error)
		error = watch_lock(watcher);
	if (error)
		return error;
	const struct region *region = region_by_id(&watcher->engine->regions, id, watcher->index);
	bool known = region ? history_had(region, seq) : region_was(&watcher->engine->regions, id);
	watch_unlock(watcher);
	return known;
}

int64_t memwatch_version_read(memwatch *watcher, uint64_t id, uint64_t seq, void *buffer, size_t size)
{
	uint64_t version;
	int error = size ? watch_need(buffer, "the buffer") : 0;
	const struct region *region = error ? NULL : hold_versions(watcher, id, &error);
	if (!region)
		return error;
	int64_t size_bytes = (int64_t)region->size_bytes;
	error = check_seq(watcher, region, seq);
	if (!error)
		error = history_version(region, seq, &version);
	if (!error)
		error = history_load(region, version, buffer, (size_t)min_u64(size, region->size_bytes));
	watch_unlock(watcher);
	return error ? error : size_bytes;
}

int memwatch_version_at(memwatch *watcher, uint64_t id, uint64_t time_ns, uint64_t *ret_seq)
{
	int error;
	const struct region *region = hold_versions(watcher, id, &error);
	if (!region)
		return error;
	if (time_ns < region->added_ns)
		error = error_set(-ENOENT, "\"%s\" was not watched then: it is since %llu ns after the epoch",
				  region_name(region), (unsigned long long)region->added_ns);
	uint64_t version = region_last_seq(region);
	const struct undo *undo = region->meta ? region->meta->newest_undo : NULL;
	if (!error && region->meta && region->meta->last_time_ns > time_ns) {
		for (; undo && (!undo->event || undo->event->shown.time_ns > time_ns); undo = undo->region_older)
			version = undo->before_seq;
		if (!undo && version)
			error = error_set(-ENOENT,
					  "what \"%s\" held then is not kept any more; the oldest kept is version %llu "
					  "(raise history_budget)",
					  region_name(region), (unsigned long long)version);
	}
	if (!error && ret_seq)
		*ret_seq = version;
	watch_unlock(watcher);
	return error;
}

int memwatch_history_read(memwatch *watcher, uint64_t id, uint64_t before, const struct memwatch_event **events,
			  size_t n)
{
	size_t count = 0;
	int error = n ? watch_need(events, "the list") : 0;
	const struct region *region = error ? NULL : watch_hold(watcher, id, &error);
	if (!region)
		return error;
	const struct undo *undo = region->meta ? region->meta->newest_undo : NULL;
	for (; undo && count < n; undo = undo->region_older) {
		if (!undo->event || (before && undo->seq >= before))
			continue;
		events[count] = &undo->event->shown;
		memwatch_event_ref(events[count++]);
	}
	engine_unlock(watcher->engine);
	await_names(watcher, count ? events[0]->seq : 0); /* the newest */
	handle_leave(watcher);
	return (int)count;
}

int memwatch_blame_sized(memwatch *watcher, uint64_t id, uint64_t offset, uint64_t size_bytes,
			 struct memwatch_blame *blames, size_t n, size_t struct_bytes)
{
	int error = n ? watch_need(blames, "the list") : 0;
	const struct region *region = error ? NULL : hold_versions(watcher, id, &error);
	uint8_t *work = NULL;
	if (!region)
		return error;
	if (!size_bytes || offset > region->size_bytes || size_bytes > region->size_bytes - offset)
		error = error_set(-EINVAL, "\"%s\" has %llu bytes, and there are none at %llu + %llu",
				  region_name(region), (unsigned long long)region->size_bytes,
				  (unsigned long long)offset, (unsigned long long)size_bytes);
	else if (!(work = mem_alloc(2 * size_bytes)))
		error = error_set(-ENOMEM, "no memory to blame %llu bytes", (unsigned long long)size_bytes);
	else
		error = history_blame(region, offset, size_bytes, work, blames, n, struct_bytes);
	engine_unlock(watcher->engine);
	mem_free(work);
	for (int i = 0; i < error; i++) {
		const struct memwatch_blame *blame = structs_at(blames, (size_t)i, struct_bytes);
		await_names(watcher, blame->event ? blame->event->seq : 0);
	}
	handle_leave(watcher);
	return error;
}
