/*
 * ring.c -- DESIGN: a producer reserves a slot by moving `head`, fills it, and publishes it by writing the time. The
 * consumer takes slots in order and stops at one that is reserved but not published. The producer wakes the worker only
 * when the worker said that it sleeps, so that a burst costs one system call.
 */
#include "ring.h"

#include <string.h>

int ring_init(struct ring *ring, uint32_t capacity)
{
	memset(ring, 0, sizeof *ring);
	ring->slots = mem_map(capacity * sizeof *ring->slots);
	if (!ring->slots)
		return error_set(-ENOMEM, "no memory for a ring of %u notes", capacity);
	memset(ring->slots, 0, capacity * sizeof *ring->slots); /* its pages now, not in a handler */
	ring->capacity = capacity;
	return 0;
}

void ring_fini(struct ring *ring)
{
	mem_unmap(ring->slots, ring->capacity * sizeof *ring->slots);
	ring->slots = NULL;
}

bool ring_push(struct ring *ring, uint64_t time_ns, uint64_t address, uint64_t ip, int32_t thread_id, uint32_t location)
{
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	do {
		/* Pairs with the release of tail in ring_pop: a slot that counts as free has been read and zeroed. */
		if (head - atomic_load_explicit(&ring->tail, memory_order_acquire) >= ring->capacity) {
			atomic_fetch_add_explicit(&ring->dropped, 1, memory_order_relaxed);
			return false;
		}
	} while (!atomic_compare_exchange_weak_explicit(&ring->head, &head, head + 1, memory_order_relaxed,
							memory_order_relaxed));
	struct note *slot = &ring->slots[head & (ring->capacity - 1)];
	slot->address = address;
	slot->ip = ip;
	slot->thread_id = thread_id;
	slot->location = location;
	/* Pairs with the load in ring_pop, and (sequentially consistent) with ring_sleep: either it sees this note or
	 * we see that it sleeps. */
	atomic_store(&slot->time_ns, time_ns);
	if (atomic_load(&ring->asleep) && atomic_exchange(&ring->asleep, 0))
		ring_kick(ring);
	return true;
}

bool ring_pop(struct ring *ring, struct note *ret_note)
{
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	struct note *slot = &ring->slots[tail & (ring->capacity - 1)];
	uint64_t time_ns = atomic_load(&slot->time_ns);
	if (!time_ns)
		return false;
	atomic_init(&ret_note->time_ns, time_ns);
	ret_note->address = slot->address;
	ret_note->ip = slot->ip;
	ret_note->thread_id = slot->thread_id;
	ret_note->location = slot->location;
	uint64_t depth = ring_depth_guess(ring);
	if (depth > atomic_load_explicit(&ring->high_water, memory_order_relaxed))
		atomic_store_explicit(&ring->high_water, depth, memory_order_relaxed);
	atomic_store_explicit(&slot->time_ns, 0, memory_order_relaxed);
	/* Pairs with the acquire in ring_push. */
	atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
	return true;
}

bool ring_sleep(struct ring *ring)
{
	atomic_store(&ring->asleep, 1);
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	if (!atomic_load(&ring->slots[tail & (ring->capacity - 1)].time_ns))
		return true;
	atomic_store(&ring->asleep, 0);
	return false;
}

void ring_kick(struct ring *ring)
{
	atomic_fetch_add(&ring->wake, 1);
	futex_wake(&ring->wake);
}

uint64_t ring_depth_guess(const struct ring *ring)
{
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	return head > tail ? head - tail : 0;
}
