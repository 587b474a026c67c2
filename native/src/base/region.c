/*
 * region.c -- DESIGN: records live in chunks that never move, so that pointers stay good; a slot that is used again
 * gets a new generation, so that an old id never finds a new region. The treap is ordered by (start, slot), its
 * priorities are a hash of the slot, and each node knows the largest end below it, which makes it an interval tree.
 * Names hang in an open-addressing table with tombstones (UINT32_MAX).
 */
#include "region.h"

#include <string.h>

#define TOMBSTONE UINT32_MAX

static struct region *at(const struct regions *regions, uint32_t slot)
{
	return &regions->chunks[slot / REGION_CHUNK][slot % REGION_CHUNK];
}

static uint32_t priority(uint32_t slot)
{
	uint32_t x = slot * UINT32_C(0x9e3779b1);
	x ^= x >> 15;
	x *= UINT32_C(0x85ebca77);
	return x ^ x >> 13;
}

int regions_init(struct regions *regions)
{
	*regions = (struct regions){ .n_slots = 1, .names_size = 64 };
	regions->names = mem_alloc(regions->names_size * sizeof *regions->names);
	if (!regions->names)
		return error_set(-ENOMEM, "no memory for the table of names");
	int error = layouts_init(&regions->layouts);
	if (error) {
		mem_free(regions->names);
		regions->names = NULL;
	}
	return error;
}

void regions_fini(struct regions *regions)
{
	for (uint32_t slot = 1; slot < regions->n_slots; slot++)
		if (at(regions, slot)->shadow)
			region_free(regions, at(regions, slot));
	for (uint32_t i = 0; i < regions->n_chunks; i++)
		mem_free(regions->chunks[i]);
	mem_free(regions->chunks);
	mem_free(regions->names);
	layouts_fini(&regions->layouts);
	*regions = (struct regions){ 0 };
}

/* --- names --- */

static uint32_t name_hash(const char *name, uint8_t watcher)
{
	uint64_t hash = 14695981039346656037u ^ watcher;
	for (; *name; name++)
		hash = (hash ^ (uint8_t)*name) * 1099511628211u;
	return (uint32_t)(hash ^ hash >> 32);
}

/* The place of the name, or NULL. */
static uint32_t *name_find(const struct regions *regions, const char *name, uint8_t watcher)
{
	uint32_t mask = regions->names_size - 1;
	for (uint32_t i = name_hash(name, watcher);; i++) {
		uint32_t *place = &regions->names[i & mask];
		if (!*place)
			return NULL;
		if (*place == TOMBSTONE)
			continue;
		const struct region *region = at(regions, *place);
		if (region->watcher == watcher && strcmp(region_name(region), name) == 0)
			return place;
	}
}

static void name_put(uint32_t *names, uint32_t size, uint32_t slot, const struct region *region)
{
	uint32_t i = name_hash(region_name(region), region->watcher);
	while (names[i & (size - 1)])
		i++;
	names[i & (size - 1)] = slot;
}

/* Makes room for one more name. */
static int name_reserve(struct regions *regions)
{
	if ((regions->names_filled + 1) * 2 <= regions->names_size)
		return 0;
	uint32_t size = 64;
	while (size < (regions->n_used + 1) * 4)
		size *= 2;
	uint32_t *names = mem_alloc(size * sizeof *names);
	if (!names)
		return error_set(-ENOMEM, "no memory for the table of names");
	for (uint32_t i = 0; i < regions->names_size; i++)
		if (regions->names[i] && regions->names[i] != TOMBSTONE)
			name_put(names, size, regions->names[i], at(regions, regions->names[i]));
	mem_free(regions->names);
	regions->names = names;
	regions->names_size = size;
	regions->names_filled = regions->n_used;
	return 0;
}

/* --- records --- */

static int chunk_add(struct regions *regions)
{
	if (regions->n_chunks % 16 == 0) {
		struct region **chunks = mem_grow(regions->chunks, (regions->n_chunks + 16) * sizeof *chunks);
		if (!chunks)
			return error_set(-ENOMEM, "no memory for more regions");
		regions->chunks = chunks;
	}
	struct region *chunk = mem_alloc(REGION_CHUNK * sizeof *chunk);
	if (!chunk)
		return error_set(-ENOMEM, "no memory for more regions");
	regions->chunks[regions->n_chunks++] = chunk;
	return 0;
}

static int slot_take(struct regions *regions, uint32_t *ret_slot)
{
	if (regions->free) {
		*ret_slot = regions->free;
		regions->free = at(regions, regions->free)->left;
		return 0;
	}
	if (regions->n_slots > REGIONS_MAX)
		return error_set(-ENOSPC, "%u regions are watched, which is the limit; unwatch some first",
				 regions->n_used);
	if (regions->n_slots / REGION_CHUNK >= regions->n_chunks) {
		int error = chunk_add(regions);
		if (error)
			return error;
	}
	*ret_slot = regions->n_slots++;
	return 0;
}

uint64_t region_shadow_bytes(uint64_t start, uint64_t size_bytes, uint8_t flags)
{
	if (!start)
		return 0;
	if (!(flags & MEMWATCH_REGION_HASHED))
		return size_bytes;
	return (page_ceil(start + size_bytes) - page_floor(start)) / PAGE_BYTES * sizeof(uint64_t);
}

uint8_t *region_shadow_new(uint64_t start, uint64_t size_bytes, uint8_t flags, const char *name)
{
	size_t shadow_bytes = region_shadow_bytes(start, size_bytes, flags), name_bytes = strlen(name) + 1;
	uint8_t *shadow = mem_alloc(shadow_bytes + name_bytes);
	if (shadow)
		memcpy(shadow + shadow_bytes, name, name_bytes);
	return shadow;
}

int region_new(struct regions *regions, const struct region *given, struct region **ret_region)
{
	uint32_t slot = 0;
	if (name_find(regions, region_name(given), given->watcher))
		return error_set(-EEXIST, "a region named \"%s\" is already watched; unwatch it or choose another name",
				 region_name(given));
	int error = name_reserve(regions);
	if (!error)
		error = slot_take(regions, &slot);
	if (error)
		return error;
	struct region *region = at(regions, slot);
	uint32_t generation = region->generation;
	*region = *given;
	region->generation = generation;
	region->slot = slot & REGIONS_MAX;
	name_put(regions->names, regions->names_size, slot, region);
	regions->names_filled++;
	regions->n_used++;
	*ret_region = region;
	return 0;
}

struct region_meta *region_meta(struct region *region)
{
	if (!region->meta)
		region->meta = mem_alloc(sizeof *region->meta);
	return region->meta;
}

void region_meta_free(struct region_meta *meta)
{
	if (meta)
		mem_free(meta->rules);
	mem_free(meta);
}

void region_free(struct regions *regions, struct region *region)
{
	uint32_t slot = region->slot;
	uint32_t *place = name_find(regions, region_name(region), region->watcher);
	if (place)
		*place = TOMBSTONE;
	region_meta_free(region->meta);
	mem_free(region->shadow);
	layout_drop(&regions->layouts, region->layout);
	*region = (struct region){ .generation = region->generation + 1, .left = regions->free };
	regions->free = slot;
	regions->n_used--;
}

uint64_t region_id(const struct region *region)
{
	return (uint64_t)region->generation << 24 | region->slot;
}

struct region *region_by_id(const struct regions *regions, uint64_t id, uint8_t watcher)
{
	uint32_t slot = (uint32_t)id & REGIONS_MAX;
	if (!slot || slot >= regions->n_slots)
		return NULL;
	struct region *region = at(regions, slot);
	return region->shadow && region->watcher == watcher && region->generation == id >> 24 ? region : NULL;
}

uint64_t region_ticket(const struct region *region)
{
	return region_id(region) | (uint64_t)region->watcher << 56;
}

struct region *region_by_ticket(const struct regions *regions, uint64_t ticket)
{
	return region_by_id(regions, ticket << 8 >> 8, (uint8_t)(ticket >> 56));
}

bool region_was(const struct regions *regions, uint64_t id)
{
	uint32_t slot = (uint32_t)id & REGIONS_MAX;
	return slot && slot < regions->n_slots && id >> 24 < at(regions, slot)->generation;
}

struct region *region_by_name(const struct regions *regions, const char *name, uint8_t watcher)
{
	const uint32_t *place = name_find(regions, name, watcher);
	return place ? at(regions, *place) : NULL;
}

struct region *region_next(const struct regions *regions, uint32_t slot, uint32_t *ret_slot)
{
	for (; slot < regions->n_slots; slot++) {
		if (slot && at(regions, slot)->shadow) {
			*ret_slot = slot;
			return at(regions, slot);
		}
	}
	return NULL;
}

bool region_list_add(struct region_list *list, const struct region *region)
{
	if (!mem_reserve(&list->tickets, &list->capacity, list->n + 1, sizeof *list->tickets))
		return false;
	list->tickets[list->n++] = region_ticket(region);
	return true;
}

void region_list_fini(struct region_list *list)
{
	mem_free(list->tickets);
	*list = (struct region_list){ 0 };
}

enum memwatch_number region_number(struct number number, const struct region *region,
				   union memwatch_number_value *ret_value)
{
	if (!region->start) {
		*ret_value = region->meta ? region->meta->posted : (union memwatch_number_value){ 0 };
		return (enum memwatch_number)region->posted;
	}
	if (number.kind == MEMWATCH_NUMBER_NONE || number.item_bytes != region->size_bytes ||
	    region->flags & MEMWATCH_REGION_HASHED || region->values != MEMWATCH_VALUES_FULL)
		return MEMWATCH_NUMBER_NONE;
	return number_value(number, region->shadow, ret_value);
}

void region_set_posted(struct region *region, const struct memwatch_scalar *number)
{
	region->posted = number->number & 3;
	region->meta->posted = number->value;
}

/* --- the treap --- */

static bool before(const struct regions *regions, uint32_t a, uint32_t b)
{
	uint64_t x = at(regions, a)->start, y = at(regions, b)->start;
	return x != y ? x < y : a < b;
}

static void refresh(const struct regions *regions, uint32_t slot)
{
	struct region *region = at(regions, slot);
	region->max_end = region_end(region);
	if (region->left)
		region->max_end = max_u64(region->max_end, at(regions, region->left)->max_end);
	if (region->right)
		region->max_end = max_u64(region->max_end, at(regions, region->right)->max_end);
}

/* Splits a subtree into what is before `key` and the rest. */
static void split(struct regions *regions, uint32_t root, uint32_t key, uint32_t *ret_left, uint32_t *ret_right)
{
	if (!root) {
		*ret_left = *ret_right = 0;
	} else if (before(regions, root, key)) {
		split(regions, at(regions, root)->right, key, &at(regions, root)->right, ret_right);
		*ret_left = root;
		refresh(regions, root);
	} else {
		split(regions, at(regions, root)->left, key, ret_left, &at(regions, root)->left);
		*ret_right = root;
		refresh(regions, root);
	}
}

static uint32_t merge(struct regions *regions, uint32_t left, uint32_t right)
{
	if (!left || !right)
		return left ? left : right;
	if (priority(left) > priority(right)) {
		at(regions, left)->right = merge(regions, at(regions, left)->right, right);
		refresh(regions, left);
		return left;
	}
	at(regions, right)->left = merge(regions, left, at(regions, right)->left);
	refresh(regions, right);
	return right;
}

static uint32_t insert(struct regions *regions, uint32_t root, uint32_t slot)
{
	if (!root || priority(slot) > priority(root)) {
		split(regions, root, slot, &at(regions, slot)->left, &at(regions, slot)->right);
		root = slot;
	} else if (before(regions, slot, root)) {
		at(regions, root)->left = insert(regions, at(regions, root)->left, slot);
	} else {
		at(regions, root)->right = insert(regions, at(regions, root)->right, slot);
	}
	refresh(regions, root);
	return root;
}

static uint32_t erase(struct regions *regions, uint32_t root, uint32_t slot)
{
	if (!root)
		return 0;
	if (root == slot)
		return merge(regions, at(regions, slot)->left, at(regions, slot)->right);
	if (before(regions, slot, root))
		at(regions, root)->left = erase(regions, at(regions, root)->left, slot);
	else
		at(regions, root)->right = erase(regions, at(regions, root)->right, slot);
	refresh(regions, root);
	return root;
}

void region_insert(struct regions *regions, struct region *region)
{
	uint32_t slot = region->slot;
	region->left = region->right = 0;
	regions->root = insert(regions, regions->root, slot);
}

void region_erase(struct regions *regions, struct region *region)
{
	regions->root = erase(regions, regions->root, region->slot);
	region->left = region->right = 0;
}

struct search {
	const struct regions *regions;
	uint64_t start, end;
	region_visit *visit;
	void *arg;
	bool once, found;
};

static void search(struct search *s, uint32_t slot)
{
	while (slot && !(s->once && s->found)) {
		struct region *region = at(s->regions, slot);
		uint32_t right = region->start < s->end ? region->right : 0;
		if (region->max_end <= s->start)
			return;
		search(s, region->left);
		if (region->start < s->end && region_end(region) > s->start) {
			s->found = true;
			if (s->visit)
				s->visit(region, s->arg);
		}
		slot = right;
	}
}

void region_overlapping(const struct regions *regions, uint64_t start, uint64_t end, region_visit *visit, void *arg)
{
	struct search s = { .regions = regions, .start = start, .end = end, .visit = visit, .arg = arg };
	search(&s, regions->root);
}

bool region_any(const struct regions *regions, uint64_t start, uint64_t end)
{
	struct search s = { .regions = regions, .start = start, .end = end, .once = true };
	search(&s, regions->root);
	return s.found;
}
