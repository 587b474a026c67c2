/*
 * watch.c -- DESIGN: regions come and go, on their callers' threads, under the engine's lock. A page is armed when its
 * first region comes and disarmed when its last one goes (arm.c). A region is armed first and copied to its shadow
 * then: a write in between is in the copy or in the next window.
 */
#define _GNU_SOURCE
#include "watch.h"

#include "arm.h"
#include "backends.h"
#include "edge.h"
#include "handle.h"
#include "typed.h"
#include "base/number.h"
#include "base/secret.h"
#include "base/structs.h"
#include "worker/emit.h"
#include "worker/guard.h"
#include "worker/held.h"
#include "worker/precise.h"
#include "worker/resolver.h"
#include "worker/worker.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

enum { LIST_BATCH = 64 };

/* --- coming --- */

static const struct memwatch_region_options region_defaults = { .struct_bytes = sizeof region_defaults,
								.values = MEMWATCH_VALUES_AUTO };

void memwatch_region_options_init_sized(struct memwatch_region_options *options, size_t struct_bytes)
{
	struct memwatch_region_options defaults = region_defaults;
	defaults.struct_bytes = struct_bytes;
	if (options)
		memwatch_struct_write(options, struct_bytes, &defaults, sizeof defaults);
}

/* Whoever posts its events applies conditions and limits of its own. */
static int check_external(uint64_t address, size_t size_bytes, const struct memwatch_region_options *options)
{
	if (address || size_bytes)
		return error_set(-EINVAL, "a region with MEMWATCH_REGION_EXTERNAL has no memory");
	if (options->flags != MEMWATCH_REGION_EXTERNAL || options->when || options->max_rate > 0 || options->metric ||
	    options->precise || options->format || options->n_dims || (options->backend && *options->backend))
		return error_set(-EINVAL, "a region with MEMWATCH_REGION_EXTERNAL has a name, values and "
					  "history_budget: the other options are for memory");
	return 0;
}

static int check_memory(uint64_t address, size_t size_bytes, const struct memwatch_region_options *options)
{
	if (options->flags & MEMWATCH_REGION_EXTERNAL)
		return check_external(address, size_bytes, options);
	if (!size_bytes)
		return error_set(-EINVAL, "a region of 0 bytes cannot change; give it at least one byte");
	if (!address || address >= ADDRESS_END || size_bytes > ADDRESS_END - address)
		return error_set(-EINVAL, "0x%llx + %zu is no range of user memory", (unsigned long long)address,
				 size_bytes);
	return 0;
}

/* Completes them, too. */
static int check_region_options(struct memwatch_region_options *options, size_t size_bytes)
{
	const uint32_t known = MEMWATCH_REGION_PINNED | MEMWATCH_REGION_EXTERNAL | MEMWATCH_REGION_HASHED;
	if (options->flags & ~known)
		return error_set(-EINVAL, "flags 0x%x: there are no others than 0x%x", options->flags, known);
	if (options->name && !*options->name) /* to Prometheus an empty label is no label */
		return error_set(-EINVAL, "a name is not empty; leave it out to have one made");
	if (options->name && strlen(options->name) > MEMWATCH_NAME_MAX)
		return error_set(-ENAMETOOLONG, "a name has at most %d bytes", MEMWATCH_NAME_MAX);
	if ((unsigned)options->precise > MEMWATCH_PRECISE_NEVER)
		return error_set(-EINVAL, "precise must be one of enum memwatch_precise");
	if ((unsigned)options->values > MEMWATCH_VALUES_AUTO)
		return error_set(-EINVAL, "values must be one of enum memwatch_values");
	int error = typed_take(options, size_bytes);
	return error ? error : typed_check_numbers(options);
}

/* Its meta, where it asks for more than every change. */
static int rules_new(const struct memwatch_region_options *options, struct region_meta **ret_meta)
{
	*ret_meta = NULL;
	if (!options->when && options->max_rate == 0 && !options->history_budget)
		return 0;
	struct region_meta *meta = mem_alloc(sizeof *meta);
	struct region_rules *rules = meta ? mem_alloc(sizeof *rules) : NULL;
	if (!rules) {
		mem_free(meta);
		return -ENOMEM;
	}
	*rules = (struct region_rules){ .when = options->when,
					.low = options->low,
					.high = options->high,
					.interval_ns = options->max_rate > 0 ? (uint64_t)(1e9 / options->max_rate) : 0,
					.history_budget = options->history_budget };
	meta->rules = rules;
	*ret_meta = meta;
	return 0;
}

/* The first look at the memory, after it was armed. */
static int fill_shadow(struct engine *engine, struct region *region)
{
	struct span whole = { region->start, region_end(region) };
	struct span_list all = { .spans = &whole, .n = 1 }, none = { 0 };
	if (!(region->flags & MEMWATCH_REGION_HASHED)) {
		int error = memory_copy(region->shadow, region->start, region->size_bytes);
		if (!error || error == -EFAULT || !(region->flags & MEMWATCH_REGION_PINNED))
			return error;
		memcpy(region->shadow, (const void *)(uintptr_t)region->start, region->size_bytes);
		return 0;
	}
	diff_reset(&engine->diff, 0);
	return gather_diff(&engine->gather, &engine->diff, region, &all, &none);
}

static int unreadable(const struct region *region, int error)
{
	if (error == -EFAULT)
		return error_set(error, "the memory of \"%s\" cannot be read", region_name(region));
	return error_set(
		error,
		"the memory of \"%s\" cannot be read safely: process_vm_writev and a pipe are refused (%s); allow "
		"one of them, or promise by MEMWATCH_REGION_PINNED that the memory stays",
		region_name(region), strerror(-error));
}

static const char *backend_name(const struct engine *engine, const struct region *region)
{
	if (!region->start)
		return "external";
	if (region->backend)
		return engine->backends[region->backend - 1]->name;
	return (region->flags & REGION_POLLED ? engine->fallback : engine->watchers[region->watcher]->backend)->name;
}

static int enter_memory(struct engine *engine, struct memwatch *watcher, struct region *region)
{
	int error = arm_region(engine, watcher, region);
	if (error == -EBUSY)
		error_set(error, "another backend holds pages of \"%s\" for another region", region_name(region));
	else if (error)
		error_set(error, "the memory of \"%s\" cannot be watched by %s: %s", region_name(region),
			  backend_name(engine, region), strerror(-error));
	else if ((error = fill_shadow(engine, region)))
		unreadable(region, error);
	if (error) {
		arm_drop_unwatched(engine, span_of(region->start, region->size_bytes));
		return error;
	}
	/* In this order: of a note before either the store may have run before the shadow was read. */
	region->added_ns = time_realtime_ns();
	who_added(&engine->who, &engine->ring);
	region_insert(&engine->regions, region);
	edge_came(engine, region);
	return 0;
}

/* What the caller gave, without a place yet. */
static void newcomer_fini(struct region *newcomer)
{
	mem_free(newcomer->shadow);
	region_meta_free(newcomer->meta);
}

static int newcomer_init(struct region *newcomer, const char *name, const struct memwatch_region_options *options)
{
	enum memwatch_values automatic = secret_looks_like(name) ? MEMWATCH_VALUES_HASH : MEMWATCH_VALUES_FULL;
	newcomer->flags = (uint8_t)options->flags &
			  (MEMWATCH_REGION_PINNED | MEMWATCH_REGION_EXTERNAL | MEMWATCH_REGION_HASHED);
	newcomer->values = (options->values == MEMWATCH_VALUES_AUTO ? automatic : options->values) & 7;
	newcomer->precise = options->precise & 7;
	newcomer->metric = options->metric != 0;
	newcomer->shadow = region_shadow_new(newcomer->start, newcomer->size_bytes, newcomer->flags, name);
	if (!newcomer->shadow || rules_new(options, &newcomer->meta)) {
		newcomer_fini(newcomer);
		return error_set(-ENOMEM, "no memory for the shadow of \"%s\", %llu bytes", name,
				 (unsigned long long)region_shadow_bytes(newcomer->start, newcomer->size_bytes,
									 newcomer->flags));
	}
	return 0;
}

static int choose_backend(struct engine *engine, const struct memwatch_region_options *options, struct region *region)
{
	if (!options->backend || !*options->backend || !region->start)
		return 0;
	int number = backends_number(engine, options->backend);
	if (number < 0)
		return number;
	region->backend = (unsigned)(number + 1) & 0xfU;
	return 0;
}

/* Takes over what `newcomer` brings, even in failing. */
static int enter(struct memwatch *watcher, struct region *newcomer, const struct memwatch_region_options *options,
		 uint64_t *ret_id)
{
	struct engine *engine = watcher->engine;
	struct region *region;
	int error = region_new(&engine->regions, newcomer, &region);
	if (error) {
		newcomer_fini(newcomer);
		return error;
	}
	error = choose_backend(engine, options, region);
	region->added_ns = time_realtime_ns();
	region->added_seq = log_newest(watcher->log);
	if (!error)
		error = layout_take(&engine->regions.layouts, options, &region->layout);
	if (!error && newcomer->start)
		error = enter_memory(engine, watcher, region);
	if (!error && newcomer->precise == MEMWATCH_PRECISE_REQUIRED) {
		error = precise_add(engine, region);
		if (error && region->start) {
			region_erase(&engine->regions, region);
			arm_drop_unwatched(engine, span_of(region->start, region->size_bytes));
		}
	}
	if (!error && region->precise == MEMWATCH_PRECISE_AUTO)
		guard_offer(engine, region);
	if (error) {
		region_free(&engine->regions, region);
		return error;
	}
	watcher->n_regions++;
	watcher->tracked_bytes += newcomer->size_bytes;
	*ret_id = region_id(region);
	return 0;
}

/* "region-<n>" that is not in use. */
static void name_freely(struct memwatch *watcher, char name[32])
{
	static _Atomic uint64_t n;
	uint64_t id;
	do
		snprintf(name, 32, "region-%llu", (unsigned long long)atomic_fetch_add(&n, 1) + 1);
	while (memwatch_region_find(watcher, name, &id) == 0);
}

int memwatch_region_add(memwatch *watcher, void *address, size_t size_bytes,
			const struct memwatch_region_options *given, uint64_t *ret_id)
{
	struct memwatch_region_options options = region_defaults;
	uint64_t start = (uint64_t)(uintptr_t)address, id = 0;
	char free_name[32];
	int error = given ? structs_take("region_options", &options, sizeof options, given, given->struct_bytes) : 0;
	if (!error)
		error = check_memory(start, size_bytes, &options);
	if (!error)
		error = check_region_options(&options, size_bytes);
	if (!error)
		error = handle_enter(watcher);
	if (error)
		return error;
	if (!options.name)
		name_freely(watcher, free_name);
	struct region newcomer = { .start = start, .size_bytes = size_bytes, .watcher = watcher->index };
	error = newcomer_init(&newcomer, options.name ? options.name : free_name, &options);
	if (!error) {
		engine_lock(watcher->engine);
		error = enter(watcher, &newcomer, &options, &id);
		engine_unlock(watcher->engine);
	}
	handle_leave(watcher);
	if (!error && ret_id)
		*ret_id = id;
	return error;
}

/* --- going --- */

static void leave(struct engine *engine, struct memwatch *watcher, struct region *region)
{
	struct span span = span_of(region->start, region->size_bytes);
	precise_remove(engine, region);
	guard_remove(engine, region);
	held_release(engine, region);
	if (region->start && !(region->flags & REGION_LOST))
		region_erase(&engine->regions, region);
	history_forget(&watcher->history, region);
	resolver_announce(engine->resolver, watcher->log);
	watcher->n_regions--;
	watcher->tracked_bytes -= region->size_bytes;
	if (region->start) {
		arm_drop_unwatched(engine, span);
		edge_went(engine, region);
	}
	region_free(&engine->regions, region);
}

void watch_remove_all(struct engine *engine, struct memwatch *watcher)
{
	uint32_t slot = 1;
	for (struct region *region; (region = region_next(&engine->regions, slot, &slot)); slot++)
		if (region->watcher == watcher->index)
			leave(engine, watcher, region);
}

static int unknown(uint64_t id)
{
	return error_set(-ENOENT, "no region has the id %llu", (unsigned long long)id);
}

int memwatch_region_remove(memwatch *watcher, uint64_t id)
{
	int error;
	struct region *region = watch_hold(watcher, id, &error);
	if (!region)
		return error;
	struct engine *engine = watcher->engine;
	struct span span = span_of(region->start, region->size_bytes);
	engine_unlock(engine);
	if (span.start)
		worker_pass(engine, span);
	engine_lock(engine);
	region = region_by_id(&engine->regions, id, watcher->index);
	if (region && region->flags & REGION_PENDING) { /* a pass is in the middle of it */
		region->flags |= REGION_WRITTEN;
		emit_region(engine, region);
	}
	if (region)
		leave(engine, watcher, region);
	watch_unlock(watcher);
	return region ? 0 : unknown(id);
}

/* --- looking --- */

int memwatch_region_find(memwatch *watcher, const char *name, uint64_t *ret_id)
{
	int error = watch_need(name, "the name");
	if (!error)
		error = watch_lock(watcher);
	if (error)
		return error;
	const struct region *region = region_by_name(&watcher->engine->regions, name, watcher->index);
	if (region && ret_id)
		*ret_id = region_id(region);
	watch_unlock(watcher);
	return region ? 0 : error_set(-ENOENT, "no region is named \"%s\"", name);
}

int watch_lock(memwatch *watcher)
{
	int error = handle_enter(watcher);
	if (!error)
		engine_lock(watcher->engine);
	return error;
}

void watch_unlock(memwatch *watcher)
{
	engine_unlock(watcher->engine);
	handle_leave(watcher);
}

int watch_need(const void *pointer, const char *name)
{
	return pointer ? 0 : error_set(-EINVAL, "%s is NULL", name);
}

struct region *watch_hold(memwatch *watcher, uint64_t id, int *ret_error)
{
	if ((*ret_error = watch_lock(watcher)))
		return NULL;
	struct region *region = region_by_id(&watcher->engine->regions, id, watcher->index);
	if (!region) {
		watch_unlock(watcher);
		*ret_error = unknown(id);
	}
	return region;
}

struct region *watch_hold_values(memwatch *watcher, uint64_t id, int *ret_error)
{
	struct region *region = watch_hold(watcher, id, ret_error);
	if (region && region->values != MEMWATCH_VALUES_FULL) {
		*ret_error = error_set(-EACCES, "the values of \"%s\" are not shown: its policy is not full",
				       region_name(region));
		watch_unlock(watcher);
		region = NULL;
	}
	return region;
}

int64_t memwatch_region_snapshot(memwatch *watcher, uint64_t id, void *buffer, size_t size, uint64_t *ret_seq)
{
	int error = size ? watch_need(buffer, "the buffer") : 0;
	const struct region *region = error ? NULL : watch_hold_values(watcher, id, &error);
	if (!region)
		return error;
	size_t n = (size_t)min_u64(size, region->size_bytes);
	if (region->flags & MEMWATCH_REGION_HASHED)
		error = memory_copy(buffer, region->start, n);
	else if (n)
		memcpy(buffer, region->shadow, n);
	if (error)
		error_set(error, "the memory of \"%s\" cannot be read: %s", region_name(region), strerror(-error));
	else if (ret_seq)
		*ret_seq = region_last_seq(region);
	watch_unlock(watcher);
	return error ? error : (int64_t)n;
}

int64_t memwatch_region_read(memwatch *watcher, uint64_t id, void *buffer, size_t size)
{
	return memwatch_region_snapshot(watcher, id, buffer, size, NULL);
}

int memwatch_region_summary_sized(memwatch *watcher, uint64_t id, struct memwatch_summary *ret_summary,
				  size_t struct_bytes)
{
	struct memwatch_summary summary;
	int error = watch_need(ret_summary, "the place for the summary");
	const struct region *region = error ? NULL : watch_hold_values(watcher, id, &error);
	if (!region)
		return error;
	struct number number = region_layout(&watcher->engine->regions, region)->number;
	if (number.kind == MEMWATCH_NUMBER_NONE || region->flags & MEMWATCH_REGION_HASHED)
		error = error_set(-ENOTSUP, "\"%s\" holds no numbers", region_name(region));
	else
		number_summary(number, region->shadow, region->size_bytes / number.item_bytes, &summary);
	watch_unlock(watcher);
	if (!error)
		memwatch_struct_write(ret_summary, struct_bytes, &summary, sizeof summary);
	return error;
}

static void fill_info(const struct engine *engine, const struct region *region, void *ret_info, size_t struct_bytes)
{
	static const struct region_meta unchanged;
	const struct region_meta *meta = region->meta ? region->meta : &unchanged;
	const struct layout *layout = region_layout(&engine->regions, region);
	struct memwatch_region_info info = {
		.id = region_id(region),
		.address = region->start,
		.size_bytes = region->size_bytes,
		.flags = region->flags & (MEMWATCH_REGION_PINNED | MEMWATCH_REGION_EXTERNAL | MEMWATCH_REGION_HASHED),
		.values = region->values,
		.backend = backend_name(engine, region),
		.item_bytes = layout->number.item_bytes,
		.n_dims = layout->n_dims,
		.metric = region->metric,
		.precise = region->point != 0,
		.added_ns = region->added_ns,
		.added_seq = region->added_seq,
		.last_seq = meta->last_seq,
		.last_time_ns = meta->last_time_ns,
		.ledger = { region->detected, meta->delivered, meta->coalesced, region->unchanged, meta->filtered,
			    meta->dropped },
	};
	strcpy(info.name, region_name(region));
	if (layout->format && strlen(layout->format) < sizeof info.format)
		strcpy(info.format, layout->format);
	if (layout->n_dims)
		memcpy(info.shape, layout->shape, layout->n_dims * sizeof *layout->shape);
	info.number = region_number(layout->number, region, &info.value);
	memwatch_struct_write(ret_info, struct_bytes, &info, sizeof info);
}

int watch_list(memwatch *watcher, uint64_t *cursor, watch_fill *fill, void *items, size_t n, size_t item_bytes)
{
	int error = watch_need(cursor, "the cursor");
	if (!error && n)
		error = watch_need(items, "the list");
	if (!error)
		error = watch_lock(watcher);
	if (error)
		return error;
	struct engine *engine = watcher->engine;
	const struct region *region = NULL;
	uint32_t slot = (uint32_t)*cursor + 1;
	size_t count = 0, n_seen = 0;
	for (; count < n && (region = region_next(&engine->regions, slot, &slot)); slot++) {
		if (region->watcher == watcher->index)
			fill(engine, region, structs_at(items, count++, item_bytes), item_bytes);
		if (++n_seen % LIST_BATCH == 0) {
			engine_unlock(engine);
			engine_lock(engine);
		}
	}
	watch_unlock(watcher);
	*cursor = slot - 1;
	return (int)count;
}

int memwatch_region_list_sized(memwatch *watcher, uint64_t *cursor, struct memwatch_region_info *infos, size_t n,
			       size_t struct_bytes)
{
	return watch_list(watcher, cursor, fill_info, infos, n, struct_bytes);
}

int memwatch_region_info_get_sized(memwatch *watcher, uint64_t id, struct memwatch_region_info *ret_info,
				   size_t struct_bytes)
{
	int error = watch_need(ret_info, "the place for the info");
	const struct region *region = error ? NULL : watch_hold(watcher, id, &error);
	if (!region)
		return error;
	fill_info(watcher->engine, region, ret_info, struct_bytes);
	watch_unlock(watcher);
	return 0;
}
