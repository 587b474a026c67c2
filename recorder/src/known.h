/*
 * known.h -- rows that this run has made, found by a key of 128 bits: its variables, who wrote, and where. The
 * recorder's thread alone.
 */
#ifndef RECORDER_KNOWN_H
#define RECORDER_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct known_key {
	uint64_t low, high;
};

/* What a transaction may change, so that one that failed can be undone. */
struct known_state {
	int64_t last_id; /* of the last event that had it */
	int chain;       /* of a variable: see chain.c */
	uint64_t hash;   /* of its value after that event, 0: not known */
};

struct known {
	struct known *next, *next_touched;
	struct known_key key;
	int64_t row;
	bool whole;      /* of a variable: its changes carry the whole value */
	bool is_new;     /* made in this transaction */
	bool is_touched; /* in the table's list */
	struct known_state now, committed;
};

struct known_table {
	struct known **buckets;
	size_t n_buckets, n;
	struct known *touched; /* in this transaction */
};

struct known *known_find(const struct known_table *table, struct known_key key);
/* NULL without memory. */
struct known *known_add(struct known_table *table, struct known_key key, int64_t row);
/* Before `known->now` is changed. */
void known_touch(struct known_table *table, struct known *known);
/* After the transaction. Undone, what it made is forgotten. */
void known_commit(struct known_table *table);
void known_undo(struct known_table *table);
/* Forgets one; and those whose last event was at most `last_id`. Not while one of them is touched. */
void known_drop(struct known_table *table, struct known_key key);
void known_drop_until(struct known_table *table, int64_t last_id);
void known_fini(struct known_table *table);

#endif
