/*
 * ring.c -- DESIGN: a producer reserves a slot by moving `head`, fills it, and publishes it by writing the time.
 * The consumer takes slots in order and stops at one that is reserved but not published. The producer wakes the
 * worker only when the worker said that it sleeps, so that a burst costs one system call. Producers are handlers,
 * which nobody leaves half done (chain.c): a slot that was reserved is published.
 *
 * Loss: a full ring drops the newest item and counts it.
 */
#include "ring.h"

#include <string.h>

int ring_init(struct ring *ring, uint32_t capacity, size_t item_bytes)
{
	memset(ring, 0, sizeof *ring);
	char *slots = mem_map(capacity * item_bytes);
	if (!slots)
		return error_set(-ENOMEM, "no memory for a ring of %u notes", capacity);
	memset(slots, 0, capacity * item_bytes); /* its pages now, not in a handler */
	ring->capacity = capacity;
	ring->item_bytes = item_bytes;
	/* Pairs with the acquire in slot_at: who sees the slots sees how many there are. */
	atomic_store_explicit(&ring->slots, slots, memory_order_release);
	return 0;
}

void ring_fini(struct ring *ring)
{
	mem_unmap(atomic_load(&ring->slots), ring->capacity * ring->item_bytes);
	atomic_store(&ring->slots, NULL);
}

/* The time that the slot begins with. Once there are slots. */
static _Atomic uint64_t *slot_at(struct ring *ring, uint64_t n)
{
	char *slots = atomic_load_explicit(&ring->slots, memory_order_acquire);
	return (_Atomic uint64_t *)(void *)(slots + (n & (ring->capacity - 1)) * ring->item_bytes);
}

void ring_clear(struct ring *ring)
{
	for (uint64_t i = 0; atomic_load(&ring->slots) && i < ring->capacity; i++)
		atomic_store_explicit(slot_at(ring, i), 0, memory_order_relaxed);
	atomic_store(&ring->head, 0);
	atomic_store(&ring->tail, 0);
}

bool ring_push(struct ring *ring, const void *item)
{
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed), time_ns;
	do {
		/* Pairs with the release of tail in ring_pop: a slot that counts as free has been read and zeroed. */
		if (head - atomic_load_explicit(&ring->tail, memory_order_acquire) >= ring->capacity) {
			atomic_fetch_add_explicit(&ring->dropped, 1, memory_order_relaxed);
			return false;
		}
	} while (!atomic_compare_exchange_weak_explicit(&ring->head, &head, head + 1, memory_order_relaxed,
							memory_order_relaxed));
	_Atomic uint64_t *slot = slot_at(ring, head);
	memcpy(&time_ns, item, sizeof time_ns);
	memcpy(slot + 1, (const char *)item + sizeof time_ns, ring->item_bytes - sizeof time_ns);
	/*
	 * Pairs with the load in ring_pop, and (sequentially consistent) with ring_sleep: either the worker sees
	 * this item or ring_nudge sees that it sleeps.
	 */
	atomic_store(slot, time_ns);
	return true;
}

void ring_nudge(struct ring *ring)
{
	if (atomic_load(&ring->asleep) && atomic_exchange(&ring->asleep, 0))
		ring_kick(ring);
}

bool ring_waiting(struct ring *ring)
{
	return atomic_load(&ring->slots) &&
	       atomic_load(slot_at(ring, atomic_load_explicit(&ring->tail, memory_order_relaxed)));
}

bool ring_pop(struct ring *ring, void *ret_item)
{
	if (!ring_waiting(ring))
		return false;
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed), depth = ring_depth_guess(ring);
	_Atomic uint64_t *slot = slot_at(ring, tail);
	memcpy(ret_item, slot, ring->item_bytes);
	if (depth > atomic_load_explicit(&ring->high_water, memory_order_relaxed))
		atomic_store_explicit(&ring->high_water, depth, memory_order_relaxed);
	atomic_store_explicit(slot, 0, memory_order_relaxed);
	/* Pairs with the acquire in ring_push. */
	atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
	return true;
}

bool ring_sleep(struct ring *ring)
{
	atomic_store(&ring->asleep, 1);
	if (!ring_waiting(ring))
		return true;
	atomic_store(&ring->asleep, 0);
	return false;
}

void ring_kick(struct ring *ring)
{
	atomic_fetch_add(&ring->wake, 1);
	futex_wake(&ring->wake);
}

uint64_t ring_head(const struct ring *ring)
{
	atomic_thread_fence(memory_order_acquire); /* what was read before, was read before */
	return atomic_load_explicit(&ring->head, memory_order_relaxed);
}

uint64_t ring_tail(const struct ring *ring)
{
	return atomic_load_explicit(&ring->tail, memory_order_relaxed);
}

uint64_t ring_depth_guess(const struct ring *ring)
{
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint64_t tail = ring_tail(ring);
	return head > tail ? head - tail : 0;
}
