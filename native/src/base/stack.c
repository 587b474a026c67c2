/*
 * stack.c -- DESIGN: an array of slots. A handler takes the first free one after the last that was taken, fills it and
 * marks it as taken; the worker holds it for an event or frees it; who looked its callers up frees it. So each state
 * has one owner:
 *
 *   FREE -> FILLING -> TAKEN      the handler
 *   TAKEN -> HELD or FREE         the worker
 *   HELD -> FREE                  who held it
 *
 * A number has the slot's index in its lower bits and changes with each use. The kernel reads the stack for us, since
 * it may end within the next page; a part of it will do. What is in a slot lies in pages of our own that are there
 * already, so that no handler takes a fault here.
 *
 * Which code is the C library's is asked of the dynamic linker once, by the names of the objects; in a program that was
 * linked statically there is no such object.
 */
#define _GNU_SOURCE
#include "stack.h"

#include "memory.h"

#include <link.h>
#include <string.h>
#include <ucontext.h>

enum slot_state { FREE, FILLING, TAKEN, HELD };

enum { LIBC_OBJECTS = 2 };

struct slot {
	_Alignas(CACHE_LINE) _Atomic uint32_t state;
	uint32_t number;  /* of its last use; who owns the state */
	uint64_t time_ns; /* of the note */
	uint64_t until_ns;
	int32_t thread_id;
	struct stack stack;
};

/* Pages of our own: handlers write here. */
struct stacks {
	_Atomic uint32_t n_taken;
	struct slot slots[STACKS];
	_Alignas(PAGE_BYTES) uint8_t bytes[STACKS][STACK_BYTES];
};

static struct stacks *_Atomic stacks;          /* written by stack_open, read by handlers */
static struct span libc_objects[LIBC_OBJECTS]; /* before that */

/* --- the C library --- */

static bool is_libc(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	return strncmp(name, "libc.so", 7) == 0 || strncmp(name, "libc-", 5) == 0 ||
	       strncmp(name, "linux-vdso", 10) == 0;
}

static int find_libc(struct dl_phdr_info *info, size_t size, void *arg)
{
	unsigned *n = arg;
	(void)size;
	if (!info->dlpi_name || !is_libc(info->dlpi_name))
		return 0;
	for (int i = 0; i < info->dlpi_phnum && *n < LIBC_OBJECTS; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
			uint64_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
			libc_objects[(*n)++] = (struct span){ start, start + info->dlpi_phdr[i].p_memsz };
		}
	return *n == LIBC_OBJECTS;
}

bool stack_in_libc(uint64_t ip)
{
	for (unsigned i = 0; i < LIBC_OBJECTS; i++)
		if (ip >= libc_objects[i].start && ip < libc_objects[i].end)
			return true;
	return false;
}

/* --- its life --- */

int stack_open(void)
{
	unsigned n = 0;
	if (atomic_load(&stacks))
		return 0;
	struct stacks *made = mem_map(sizeof *made);
	if (!made)
		return error_set(-ENOMEM, "no memory for the stacks of writers");
	for (size_t i = 0; i < sizeof *made; i += PAGE_BYTES) /* its pages now, not in a handler */
		((volatile uint8_t *)made)[i] = 0;
	for (uint32_t i = 0; i < STACKS; i++)
		made->slots[i].number = i;
	dl_iterate_phdr(find_libc, &n);
	memory_peek(made->bytes, (uintptr_t)made->slots, 1); /* all that a handler calls is bound now */
	atomic_store(&stacks, made);
	return 0;
}

void stack_fork_child(void)
{
	struct stacks *all = atomic_load(&stacks);
	for (unsigned i = 0; all && i < STACKS; i++) {
		all->slots[i].number += STACKS;
		atomic_store(&all->slots[i].state, FREE);
	}
}

/* --- on the writer's thread --- */

static uint64_t read_registers(const ucontext_t *context, struct stack *stack)
{
#if defined(__x86_64__)
	static const uint8_t order[STACK_REGISTERS] = { REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
							REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
							REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP };
	for (unsigned i = 0; i < STACK_REGISTERS; i++)
		stack->registers[i] = (uint64_t)context->uc_mcontext.gregs[order[i]];
	stack->ip = (uint64_t)context->uc_mcontext.gregs[REG_RIP];
	return (uint64_t)context->uc_mcontext.gregs[REG_RSP];
#elif defined(__aarch64__)
	for (unsigned i = 0; i < STACK_REGISTERS - 1; i++)
		stack->registers[i] = context->uc_mcontext.regs[i];
	stack->registers[STACK_REGISTERS - 1] = context->uc_mcontext.sp;
	stack->ip = context->uc_mcontext.pc;
	return context->uc_mcontext.sp;
#else
	return (void)context, stack->ip = 0;
#endif
}

static struct slot *slot_take(struct stacks *all)
{
	enum { TRIES = 16 };
	for (unsigned tries = 0; tries < TRIES; tries++) {
		uint32_t i = atomic_fetch_add_explicit(&all->n_taken, 1, memory_order_relaxed) % STACKS, is = FREE;
		/* Pairs with the releases of who freed it. */
		if (atomic_compare_exchange_strong_explicit(&all->slots[i].state, &is, FILLING, memory_order_acquire,
							    memory_order_relaxed))
			return &all->slots[i];
	}
	return NULL;
}

void stack_take(const void *context, uint64_t time_ns, int32_t thread_id, uint64_t until_ns)
{
	struct stacks *all = atomic_load_explicit(&stacks, memory_order_acquire);
	struct slot *slot = all ? slot_take(all) : NULL;
	if (!slot)
		return;
	uint8_t *bytes = all->bytes[slot - all->slots];
	slot->number += slot->number + STACKS ? STACKS : 2 * STACKS; /* 0 is no stack's */
	slot->time_ns = time_ns;
	slot->until_ns = until_ns;
	slot->thread_id = thread_id;
	slot->stack.start = read_registers(context, &slot->stack);
	slot->stack.n_bytes = memory_peek(bytes, slot->stack.start, STACK_BYTES);
	slot->stack.bytes = bytes;
	/* Pairs with the acquires of stack_hold and stack_forget: what is taken is whole. */
	atomic_store_explicit(&slot->state, TAKEN, memory_order_release);
}

/* --- on the worker, and whoever looks callers up --- */

static bool is_taken(struct slot *slot)
{
	/* Pairs with the release in stack_take. */
	return atomic_load_explicit(&slot->state, memory_order_acquire) == TAKEN;
}

uint32_t stack_hold(uint64_t time_ns, int32_t thread_id)
{
	struct stacks *all = atomic_load(&stacks);
	for (unsigned i = 0; all && i < STACKS; i++) {
		struct slot *slot = &all->slots[i];
		if (!is_taken(slot) || slot->time_ns != time_ns || slot->thread_id != thread_id)
			continue;
		atomic_store_explicit(&slot->state, HELD, memory_order_relaxed); /* which handlers leave alone */
		return slot->number;
	}
	return 0;
}

static struct slot *slot_of(uint32_t number)
{
	struct stacks *all = atomic_load(&stacks);
	struct slot *slot = all ? &all->slots[number % STACKS] : NULL;
	return slot && number && slot->number == number ? slot : NULL;
}

const struct stack *stack_of(uint32_t number)
{
	const struct slot *slot = slot_of(number);
	return slot ? &slot->stack : NULL;
}

void stack_release(uint32_t number)
{
	struct slot *slot = slot_of(number);
	if (slot) /* pairs with the acquire in slot_take: we have read what is overwritten then */
		atomic_store_explicit(&slot->state, FREE, memory_order_release);
}

void stack_forget(uint64_t now_ns)
{
	struct stacks *all = atomic_load(&stacks);
	for (unsigned i = 0; all && i < STACKS; i++)
		/* Pairs with the acquire in slot_take. */
		if (is_taken(&all->slots[i]) && all->slots[i].until_ns < now_ns)
			atomic_store_explicit(&all->slots[i].state, FREE, memory_order_release);
}
