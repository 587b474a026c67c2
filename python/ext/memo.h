/*
 * memo.h -- which number belongs to a key: the location of what hashes to it, so that what is costly to decode is
 * decoded once; the size of a code object's frames.
 *
 *   who may run together    memo_find, memo_keep: everything, with everything, in handlers too
 *                           memo_open: once, before them
 */
#ifndef MEMO_H
#define MEMO_H

#include <stdint.h>

struct memo_key {
	uint64_t low, high;
};

/* Touches the table's pages, since a handler must not be the first. */
void memo_open(void);
/* The number that was kept for the key, 0: none, or another one's. Signal-safe. */
uint32_t memo_find(const struct memo_key *key);
/* Takes the place of whatever was there. Signal-safe. */
void memo_keep(const struct memo_key *key, uint32_t number);

#endif
