/*
 * mem.c -- DESIGN: the host's malloc would put our records on pages with the host's variables: each update of a shadow
 * would open the page beside it, without an author. So blocks of up to 16 KiB come from chunks of 64 KiB, one size
 * class each, and larger ones have mappings of their own. A chunk's address is aligned to its size, so that a block
 * finds its chunk's head. A chunk that is empty goes back to the system unless it is its class's last.
 */
#define _GNU_SOURCE
#include "mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CHUNK_BYTES = 64 << 10, HEAD_BYTES = 64, CLASSES = 19, BIG = CLASSES, RESERVE_FIRST = 64 };

struct chunk {
	struct chunk *next, *prev;        /* of the class's chunks that have room */
	void *free;                       /* list of free blocks */
	size_t size_bytes;                /* of the mapping */
	uint32_t size_class, used, fresh; /* fresh: offset of what was never handed out */
	bool listed;
};
_Static_assert(sizeof(struct chunk) <= HEAD_BYTES, "the head fits before the first block");

static const uint16_t class_bytes[CLASSES] = { 32,   48,   64,   96,   128,  192,  256,  384,   512,  768,
					       1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384 };

/* On pages of their own too: mem_alloc is called by threads whose variables we watch. */
struct heap {
	pthread_mutex_t mutex;
	struct chunk *chunks[CLASSES];
	_Atomic uint64_t total_bytes;
};
static union {
	struct heap heap;
	char pages[4096];
} own __attribute__((aligned(4096))) = { .heap = { .mutex = PTHREAD_MUTEX_INITIALIZER } };

/* Not PAGE_BYTES: mappings end where the kernel's pages end, which may be larger. */
static size_t kernel_page(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) & ~(to - 1);
}

/* A mapping aligned to CHUNK_BYTES. */
static void *map_aligned(size_t size_bytes)
{
	char *memory = mmap(NULL, size_bytes + CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return NULL;
	char *start = (char *)round_up((size_t)memory, CHUNK_BYTES);
	if (start > memory)
		munmap(memory, (size_t)(start - memory));
	size_t tail = (size_t)(memory + CHUNK_BYTES - start);
	if (tail)
		munmap(start + size_bytes, tail);
	atomic_fetch_add_explicit(&own.heap.total_bytes, size_bytes, memory_order_relaxed);
	return start;
}

static struct chunk *chunk_of(void *memory)
{
	return (struct chunk *)((size_t)memory & ~(size_t)(CHUNK_BYTES - 1));
}

static void list(struct chunk *chunk)
{
	struct chunk **head = &own.heap.chunks[chunk->size_class];
	chunk->prev = NULL;
	chunk->next = *head;
	if (*head)
		(*head)->prev = chunk;
	*head = chunk;
	chunk->listed = true;
}

static void unlist(struct chunk *chunk)
{
	*(chunk->prev ? &chunk->prev->next : &own.heap.chunks[chunk->size_class]) = chunk->next;
	if (chunk->next)
		chunk->next->prev = chunk->prev;
	chunk->listed = false;
}

static void *big_alloc(size_t size_bytes)
{
	size_t whole = round_up(size_bytes + HEAD_BYTES, kernel_page());
	struct chunk *chunk = whole < size_bytes ? NULL : map_aligned(whole);
	if (!chunk)
		return NULL;
	chunk->size_class = BIG;
	chunk->size_bytes = whole;
	return (char *)chunk + HEAD_BYTES;
}

static struct chunk *chunk_with_room(uint32_t size_class)
{
	struct chunk *chunk = own.heap.chunks[size_class];
	if (chunk)
		return chunk;
	chunk = map_aligned(CHUNK_BYTES);
	if (!chunk)
		return NULL;
	chunk->size_class = size_class;
	chunk->size_bytes = CHUNK_BYTES;
	chunk->fresh = HEAD_BYTES;
	list(chunk);
	return chunk;
}

static void *small_alloc(uint32_t size_class)
{
	struct chunk *chunk = chunk_with_room(size_class);
	if (!chunk)
		return NULL;
	void *memory = chunk->free;
	if (memory) {
		memcpy(&chunk->free, memory, sizeof chunk->free);
	} else {
		memory = (char *)chunk + chunk->fresh;
		chunk->fresh += class_bytes[size_class];
	}
	chunk->used++;
	if (!chunk->free && chunk->fresh + class_bytes[size_class] > CHUNK_BYTES)
		unlist(chunk);
	return memory;
}

void *mem_alloc(size_t size_bytes)
{
	uint32_t size_class = 0;
	while (size_class < CLASSES && class_bytes[size_class] < size_bytes)
		size_class++;
	if (size_class == CLASSES)
		return big_alloc(size_bytes);
	pthread_mutex_lock(&own.heap.mutex);
	void *memory = small_alloc(size_class);
	pthread_mutex_unlock(&own.heap.mutex);
	return memory ? memset(memory, 0, size_bytes) : NULL;
}

static void unmap_counted(void *memory, size_t size_bytes)
{
	munmap(memory, size_bytes);
	atomic_fetch_sub_explicit(&own.heap.total_bytes, size_bytes, memory_order_relaxed);
}

void mem_free(void *memory)
{
	if (!memory)
		return;
	struct chunk *chunk = chunk_of(memory);
	if (chunk->size_class == BIG) {
		unmap_counted(chunk, chunk->size_bytes);
		return;
	}
	pthread_mutex_lock(&own.heap.mutex);
	memcpy(memory, &chunk->free, sizeof chunk->free);
	chunk->free = memory;
	chunk->used--;
	if (!chunk->listed)
		list(chunk);
	bool empty = !chunk->used && (chunk->next || chunk->prev);
	if (empty)
		unlist(chunk);
	pthread_mutex_unlock(&own.heap.mutex);
	if (empty)
		unmap_counted(chunk, CHUNK_BYTES);
}

/* A large block to another size, its pages moved, not copied: the old and the new never both take memory. */
static void *big_resize(struct chunk *chunk, size_t size_bytes)
{
	size_t whole = round_up(size_bytes + HEAD_BYTES, kernel_page()), before = chunk->size_bytes;
	struct chunk *moved = whole < size_bytes ? NULL : map_aligned(whole);
	if (!moved)
		return NULL;
	if (mremap(chunk, before, whole, MREMAP_MAYMOVE | MREMAP_FIXED, moved) == MAP_FAILED) {
		unmap_counted(moved, whole);
		return NULL;
	}
	atomic_fetch_sub_explicit(&own.heap.total_bytes, before, memory_order_relaxed);
	moved->size_bytes = whole;
	return (char *)moved + HEAD_BYTES;
}

void *mem_grow(void *memory, size_t size_bytes)
{
	struct chunk *chunk = memory ? chunk_of(memory) : NULL;
	size_t before = !chunk                     ? 0
			: chunk->size_class == BIG ? chunk->size_bytes - HEAD_BYTES
						   : class_bytes[chunk->size_class];
	if (memory && size_bytes <= before)
		return memory;
	if (chunk && chunk->size_class == BIG)
		return big_resize(chunk, size_bytes);
	void *grown = mem_alloc(size_bytes);
	if (!grown)
		return NULL;
	if (memory)
		memcpy(grown, memory, before);
	mem_free(memory);
	return grown;
}

bool mem_reserve(void *array, size_t *capacity, size_t wanted, size_t item_bytes)
{
	size_t n = *capacity ? *capacity : RESERVE_FIRST;
	void *items;
	if (wanted <= *capacity)
		return true;
	while (n < wanted)
		n *= 2;
	memcpy(&items, array, sizeof items);
	items = n > SIZE_MAX / item_bytes ? NULL : mem_grow(items, n * item_bytes);
	if (!items)
		return false;
	memcpy(array, &items, sizeof items);
	*capacity = n;
	return true;
}

void *mem_trim(void *memory, size_t size_bytes)
{
	struct chunk *chunk = chunk_of(memory);
	size_t whole = round_up(size_bytes + HEAD_BYTES, kernel_page());
	if (chunk->size_class != BIG || whole >= chunk->size_bytes)
		return memory;
	unmap_counted((char *)chunk + whole, chunk->size_bytes - whole);
	chunk->size_bytes = whole;
	return memory;
}

void *mem_map(size_t size_bytes)
{
	void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return NULL;
	atomic_fetch_add_explicit(&own.heap.total_bytes, round_up(size_bytes, kernel_page()), memory_order_relaxed);
	return memory;
}

void mem_unmap(void *memory, size_t size_bytes)
{
	if (memory)
		unmap_counted(memory, round_up(size_bytes, kernel_page()));
}

char *mem_strdup(const char *text)
{
	size_t size_bytes = strlen(text) + 1;
	char *copy = mem_alloc(size_bytes);
	return copy ? memcpy(copy, text, size_bytes) : NULL;
}

uint64_t mem_total(void)
{
	return atomic_load_explicit(&own.heap.total_bytes, memory_order_relaxed);
}

void mem_fork_child(void)
{
	own.heap.mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	memset(own.heap.chunks, 0, sizeof own.heap.chunks);
}
