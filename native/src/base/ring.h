/*
 * ring.h -- hands items of one size from the writers' threads to the worker: lock-free, many producers, one
 * consumer. Notes of faults take one ring, hits of watchpoints another.
 *
 *   who may run together    ring_push, ring_nudge: any thread, also in handlers that interrupt one another
 *                           ring_pop, ring_sleep: the worker alone
 *                           ring_waiting, ring_depth_guess and the counters: any thread
 *
 * A full ring drops the newest item and counts it. That loses an author, never a change.
 */
#ifndef RING_H
#define RING_H

#include "base.h"

/* Who took a fault. Every item begins so: a time of 0 marks a slot that is empty or still being written. */
struct note {
	_Atomic uint64_t time_ns; /* CLOCK_REALTIME; written last by the producer, zeroed by the consumer */
	uint64_t address;
	uint64_t ip; /* 0: not known, the signal came late */
	int32_t thread_id;
	uint32_t location; /* see location.h; 0: not in the interpreter */
};
static_assert(sizeof(struct note) == 32, "a note is half a cache line");

struct ring {
	_Alignas(CACHE_LINE) _Atomic uint64_t head; /* next slot to write; producers */
	_Alignas(CACHE_LINE) _Atomic uint64_t tail; /* next slot to read; the worker */
	_Atomic uint32_t wake;                      /* futex: changes when the worker is wanted */
	_Atomic uint32_t asleep;                    /* the worker wants to be told of the next item */
	_Atomic uint64_t dropped;                   /* producers */
	_Atomic uint64_t high_water;                /* the worker */
	char *_Atomic slots;                        /* NULL: not made yet */
	uint64_t capacity;                          /* a power of two */
	size_t item_bytes;
};

/* 0, or -ENOMEM with a sentence. */
int ring_init(struct ring *ring, uint32_t capacity, size_t item_bytes);
void ring_fini(struct ring *ring);
/* In the child of a fork: it is empty. */
void ring_clear(struct ring *ring);
/* Copies the item, which begins with its time. False when full. Signal-safe. */
bool ring_push(struct ring *ring, const void *item);
/* Wakes the worker if it sleeps on this ring; after an item was pushed, to this one or another. Signal-safe. */
void ring_nudge(struct ring *ring);
/* The oldest item, or false. */
bool ring_pop(struct ring *ring, void *ret_item);
/* Is there one? */
bool ring_waiting(struct ring *ring);
/* Asks that the next nudge wakes; false when an item is there already. */
bool ring_sleep(struct ring *ring);
/* Wakes the worker. Signal-safe. */
void ring_kick(struct ring *ring);
/* How many items it was given, and, for the worker, how many of them were taken. */
uint64_t ring_head(const struct ring *ring);
uint64_t ring_tail(const struct ring *ring);
uint64_t ring_depth_guess(const struct ring *ring);

#endif
