/*
 * step.c -- DESIGN: a small table of contested pages, each with a bit for every byte that a region holds. A fault on
 * such a page whose store touches no region byte is a neighbour's: the handler sets the trap flag, the store runs, and
 * the SIGTRAP after it arms the page again, so that the region's own next write still has an author.
 *
 * While the page is open for that one instruction, other threads may write to it without a fault, and arming it again
 * wipes out that it was written. So it goes to `step_pages`, which the worker, after it has collected, diffs as
 * written: the change is found, its author is unknown.
 *
 * Instructions that trap once an iteration (`rep`) or that copy the flags (`pushf`) are not stepped over. x86-64 only.
 *
 * Loss: a page that the table has no room for is not stepped: its neighbours open it for the window.
 */
#define _GNU_SOURCE
#include "step.h"

#include "../base/hash.h"
#include "../base/store.h"

#include <signal.h>
#include <string.h>
#include <ucontext.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#ifndef TRAP_TRACE
#define TRAP_TRACE 2
#endif

enum { CONTESTED = 4096, PROBES = 8, TRAP_FLAG = 0x100, CODE_MAX = 15 };

/* The keys stand apart from the masks: a look at a page that is not here, the common case, touches one cache line. */
struct contested {
	_Alignas(CACHE_LINE) _Atomic uint64_t pages[CONTESTED]; /* 0: free; groups of PROBES */
	_Atomic uint64_t masks[CONTESTED][STEP_MASK_WORDS];
};
static_assert(PROBES * sizeof(uint64_t) == CACHE_LINE, "a group is a cache line");

struct page_set step_pages;

static struct contested *table; /* made once a process */
static void (*rearm_page)(uint64_t page);
static union {
	struct {
		_Atomic uint64_t n_steps;
		_Atomic uint32_t n_closing; /* threads between the two marks of step_end */
	};
	char pages[PAGE_BYTES];
} own __attribute__((aligned(PAGE_BYTES)));

#if defined(__x86_64__)
/* The page that this thread's next trap closes. initial-exec: a handler's first touch must not allocate. */
static _Thread_local uint64_t stepping __attribute__((tls_model("initial-exec")));

/* Where the signal frame's processor state has the opmask registers; 0: it has none. Set once, by step_open. */
static uint32_t opmask_offset;

static void find_opmask(void)
{
	enum { XSTATE_LEAF = 0xd, OPMASK = 5 };
	unsigned a = 0, b = 0, c, d;
	if (__get_cpuid_count(XSTATE_LEAF, OPMASK, &a, &b, &c, &d) && a)
		opmask_offset = b;
}
#else
static void find_opmask(void)
{
}
#endif

int step_open(void (*rearm)(uint64_t page))
{
	rearm_page = rearm;
	find_opmask();
	if (!table)
		table = mem_map(sizeof *table);
	return table ? 0 : error_set(-ENOMEM, "no memory for the table of contested pages");
}

uint64_t step_count(void)
{
	return atomic_load_explicit(&own.n_steps, memory_order_relaxed);
}

void step_fork_child(void)
{
	atomic_store(&own.n_closing, 0);
}

bool step_closing(void)
{
	/*
	 * Sequentially consistent, as in step_end: who has taken a page's first mark sees that its thread is closing
	 * it.
	 */
	return atomic_load(&own.n_closing) != 0;
}

/* The first slot of the page's group. */
static unsigned group_of(uint64_t page)
{
	return (unsigned)(hash_word(page >> PAGE_SHIFT) >> 40) & (CONTESTED - 1) & ~(PROBES - 1u);
}

/* The slot of `page`, or, for 0, a free one in the group of `near`; -1: none. */
static int find_in(uint64_t near, uint64_t page)
{
	unsigned first = group_of(near);
	for (unsigned i = first; table && i < first + PROBES; i++)
		/* Pairs with the release in step_contest: the mask of a page that is seen is whole. */
		if (atomic_load_explicit(&table->pages[i], memory_order_acquire) == page)
			return (int)i;
	return -1;
}

static int find(uint64_t page)
{
	return find_in(page, page);
}

static int find_free(uint64_t page)
{
	return find_in(page, 0);
}

enum contest step_contested(uint64_t page)
{
	return find(page) >= 0 ? CONTEST_KNOWN : find_free(page) >= 0 ? CONTEST_FREE : CONTEST_NO_ROOM;
}

void step_hold(uint64_t start, uint64_t end, bool held)
{
	int slot = find(page_floor(start));
	for (uint64_t at = start; slot >= 0 && at < end; at++) {
		unsigned i = (unsigned)(at & (PAGE_BYTES - 1));
		uint64_t bit = UINT64_C(1) << i % 64;
		if (held)
			atomic_fetch_or_explicit(&table->masks[slot][i / 64], bit, memory_order_relaxed);
		else
			atomic_fetch_and_explicit(&table->masks[slot][i / 64], ~bit, memory_order_relaxed);
	}
}

void step_contest(uint64_t page, const uint64_t mask[STEP_MASK_WORDS])
{
	int known = find(page), slot = known >= 0 ? known : find_free(page);
	if (slot < 0 || page_set_reserve(&step_pages, (struct span){ page, page + PAGE_BYTES }))
		return;
	for (unsigned i = 0; i < STEP_MASK_WORDS; i++)
		atomic_store_explicit(&table->masks[slot][i], mask[i], memory_order_relaxed);
	atomic_store_explicit(&table->pages[slot], page, memory_order_release);
}

void step_forget(struct span span)
{
	for (unsigned i = 0; table && i < CONTESTED; i++) {
		uint64_t page = atomic_load_explicit(&table->pages[i], memory_order_relaxed);
		if (page >= span.start && page < span.end)
			atomic_store_explicit(&table->pages[i], 0, memory_order_relaxed);
	}
}

#if defined(__x86_64__)

static bool holds(int slot, uint64_t from, uint64_t to)
{
	for (uint64_t at = from; at < to; at++) {
		unsigned i = (unsigned)(at & (PAGE_BYTES - 1));
		if (atomic_load_explicit(&table->masks[slot][i / 64], memory_order_relaxed) >> i % 64 & 1)
			return true;
	}
	return false;
}

/* An opmask register as it was at the fault; all lanes when that cannot be told. */
static uint64_t opmask(const ucontext_t *context, unsigned number)
{
	enum { MAGIC_AT = 464, SIZE_AT = 468, PRESENT_AT = 512, OPMASK_BIT = 32 };
	const char *state = (const char *)context->uc_mcontext.fpregs;
	uint32_t magic, size;
	uint64_t present, lanes;
	if (!state || !opmask_offset)
		return UINT64_MAX;
	memcpy(&magic, state + MAGIC_AT, sizeof magic);
	memcpy(&size, state + SIZE_AT, sizeof size);
	if (magic != FP_XSTATE_MAGIC1 || size < opmask_offset + 64)
		return UINT64_MAX;
	memcpy(&present, state + PRESENT_AT, sizeof present);
	memcpy(&lanes, state + opmask_offset + number * 8, sizeof lanes);
	return present & OPMASK_BIT ? lanes : 0;
}

/* How far the store reaches; 0: do not step over it. */
static unsigned reach(const ucontext_t *context)
{
	uint64_t ip = (uint64_t)context->uc_mcontext.gregs[REG_RIP];
	size_t n = (size_t)min_u64(CODE_MAX, PAGE_BYTES - (ip & (PAGE_BYTES - 1)));
	struct store_mask mask;
	/* The instruction is about to run: its bytes on this page can be read. */
	unsigned width = store_reach((const uint8_t *)(uintptr_t)ip, n, &mask);
	if (!width || !mask.register_number)
		return width;
	unsigned n_lanes = width / mask.lane_bytes;
	uint64_t lanes = opmask(context, mask.register_number);
	if (n_lanes < 64)
		lanes &= (UINT64_C(1) << n_lanes) - 1;
	return lanes ? (64 - (unsigned)__builtin_clzll(lanes)) * mask.lane_bytes : 0;
}

bool step_wanted(uint64_t address, const void *context)
{
	int slot = find(page_floor(address));
	if (!(((const ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] & TRAP_FLAG))
		stepping = 0; /* a step that a longjmp left behind */
	if (slot < 0 || stepping)
		return false;
	unsigned width = reach(context);
	return width && !holds(slot, address, min_u64(address + width, page_floor(address) + PAGE_BYTES));
}

/* What the thread blocks but for its step. */
static _Thread_local uint64_t mask_before __attribute__((tls_model("initial-exec")));

/*
 * Signals wait for the one instruction: a handler that came before it might step itself, and its trap would be taken
 * for this one's. The handler's return sets the mask. Of glibc's sigset_t the kernel has the first 8 bytes only.
 */
static void mask_most(ucontext_t *context)
{
	static const uint8_t faults[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS };
	uint64_t most = ~UINT64_C(0);
	for (size_t i = 0; i < sizeof faults; i++)
		most &= ~(UINT64_C(1) << (faults[i] - 1));
	memcpy(&mask_before, &context->uc_sigmask, sizeof mask_before);
	most |= mask_before;
	memcpy(&context->uc_sigmask, &most, sizeof most);
}

static void mask_restore(ucontext_t *context)
{
	memcpy(&context->uc_sigmask, &mask_before, sizeof mask_before);
}

void step_begin(uint64_t address, void *context)
{
	stepping = page_floor(address);
	mask_most(context);
	((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
	atomic_fetch_add_explicit(&own.n_steps, 1, memory_order_relaxed);
}

bool step_end(int code, void *context)
{
	uint64_t page = stepping;
	if (!page || code != TRAP_TRACE)
		return false;
	stepping = 0;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
	mask_restore(context);
	/* The mark is there before the page is closed, and until after: see step_closing. */
	atomic_fetch_add(&own.n_closing, 1);
	page_set_mark(&step_pages, page);
	rearm_page(page);
	page_set_mark(&step_pages, page);
	atomic_fetch_sub(&own.n_closing, 1);
	return true;
}

#else

bool step_wanted(uint64_t address, const void *context)
{
	return (void)address, (void)context, false;
}

void step_begin(uint64_t address, void *context)
{
	(void)address, (void)context;
}

bool step_end(int code, void *context)
{
	return (void)code, (void)context, false;
}

#endif
