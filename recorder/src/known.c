/*
 * known.c -- DESIGN: a hash table with chains, and a list of what the transaction touched. The recorder's thread alone;
 * it owns the entries. Without memory an entry is not made, and the event that needed it is tried again.
 */
#include "known.h"

#include <stdlib.h>

enum { BUCKETS_MIN = 256 };

static struct known **bucket_of(const struct known_table *table, struct known_key key)
{
	return &table->buckets[(key.low ^ key.low >> 32) & (table->n_buckets - 1)];
}

struct known *known_find(const struct known_table *table, struct known_key key)
{
	struct known *known = table->n ? *bucket_of(table, key) : NULL;
	while (known && (known->key.low != key.low || known->key.high != key.high))
		known = known->next;
	return known;
}

static bool grow(struct known_table *table)
{
	struct known_table grown = { .n_buckets = table->n_buckets ? table->n_buckets * 2 : BUCKETS_MIN };
	grown.buckets = calloc(grown.n_buckets, sizeof(struct known *));
	if (!grown.buckets)
		return false;
	for (size_t i = 0; i < table->n_buckets; i++) {
		for (struct known *known = table->buckets[i], *next; known; known = next) {
			struct known **bucket = bucket_of(&grown, known->key);
			next = known->next;
			known->next = *bucket;
			*bucket = known;
		}
	}
	free(table->buckets);
	table->buckets = grown.buckets;
	table->n_buckets = grown.n_buckets;
	return true;
}

struct known *known_add(struct known_table *table, struct known_key key, int64_t row)
{
	if (table->n >= table->n_buckets && !grow(table) && !table->n_buckets)
		return NULL;
	struct known *known = calloc(1, sizeof *known);
	if (!known)
		return NULL;
	known->key = key;
	known->row = row;
	known->is_new = true;
	struct known **bucket = bucket_of(table, key);
	known->next = *bucket;
	*bucket = known;
	table->n++;
	known_touch(table, known);
	return known;
}

void known_touch(struct known_table *table, struct known *known)
{
	if (known->is_touched)
		return;
	known->is_touched = true;
	known->next_touched = table->touched;
	table->touched = known;
}

void known_commit(struct known_table *table)
{
	for (struct known *known = table->touched; known; known = known->next_touched) {
		known->committed = known->now;
		known->is_new = known->is_touched = false;
	}
	table->touched = NULL;
}

static void remove_at(struct known_table *table, struct known **link)
{
	struct known *known = *link;
	*link = known->next;
	table->n--;
	free(known);
}

void known_drop(struct known_table *table, struct known_key key)
{
	struct known **link = table->n ? bucket_of(table, key) : NULL;
	while (link && *link && ((*link)->key.low != key.low || (*link)->key.high != key.high))
		link = &(*link)->next;
	if (link && *link)
		remove_at(table, link);
}

void known_drop_until(struct known_table *table, int64_t last_id)
{
	for (size_t i = 0; i < table->n_buckets; i++)
		for (struct known **link = &table->buckets[i]; *link;)
			if ((*link)->now.last_id <= last_id)
				remove_at(table, link);
			else
				link = &(*link)->next;
}

void known_undo(struct known_table *table)
{
	struct known *next;
	for (struct known *known = table->touched; known; known = next) {
		next = known->next_touched;
		known->is_touched = false;
		known->now = known->committed;
		if (known->is_new)
			known_drop(table, known->key);
	}
	table->touched = NULL;
}

void known_fini(struct known_table *table)
{
	table->touched = NULL;
	known_drop_until(table, INT64_MAX);
	free(table->buckets);
	*table = (struct known_table){ 0 };
}
