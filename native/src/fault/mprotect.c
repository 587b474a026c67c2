/*
 * mprotect.c -- DESIGN: pages are made read-only; the first write raises SIGSEGV on the writer's thread, whose handler
 * opens the page, marks it and takes a note. The worker closes it again.
 *
 * The handler marks before and after it opens the page, the worker clears the mark, then closes the page, then reads: a
 * mark that is set belongs to a page that may have been written, whatever the two do at once.
 *
 * A page that is given back is opened first. A fault on it may be on its way to its thread then, as long as that thread
 * does not run: so pages that were ours are known for ever (a bit each), and a store into one is tried again before the
 * fault is somebody else's.
 *
 * Its price: a system call that writes into a closed page fails with EFAULT, and a thread that blocks SIGSEGV is killed
 * by its own write, and one whose alternate signal stack shares a page with a region by its next fault. Pages of
 * mappings that are not plain read-write memory, of the caller's stack, and of the alternate signal stacks of threads
 * that have watched or opened, are refused. What the host opens itself is left open, and compared by every sweep.
 *
 * Loss: none; a full ring loses the author.
 */
#define _GNU_SOURCE
#include "chain.h"
#include "fault.h"
#include "sentinel.h"
#include "system.h"
#include "trap.h"

#include "../base/maps.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { MAPPINGS = 64, SIGNAL_STACKS = 16, HUGE_BYTES = 2 << 20 };

static struct page_set pages;                    /* under the engine's lock; the handler reads */
static struct page_set written_pages;            /* the handler marks, the worker clears */
static struct page_set former_pages;             /* ever given back; under the engine's lock; the handler reads */
static _Atomic uint64_t n_changes;               /* how often pages were about to be closed or opened */
static struct span signal_stacks[SIGNAL_STACKS]; /* under the engine's lock, with their count: the latest seen */
static size_t n_signal_stacks;
static void on_segv(int place, siginfo_t *info, void *context);
static void bare_on_segv(int place, siginfo_t *info, void *context);
CHAIN_DEFINE(chain, SIGSEGV, on_segv);

static bool is_write(const void *context)
{
#if defined(__x86_64__)
	return ((const ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2;
#else
	(void)context;
	return true;
#endif
}

/* 0 or -1. */
static int open_span(struct span span)
{
	return mprotect((void *)(uintptr_t)span.start, span.end - span.start, PROT_READ | PROT_WRITE);
}

/* One call stops where memory has vanished; what lies behind the hole must be open all the same. */
static void open_whole_span(struct span span)
{
	if (open_span(span) == 0)
		return;
	for (uint64_t page = span.start; page < span.end; page += PAGE_BYTES)
		open_span((struct span){ page, page + PAGE_BYTES });
}

static int close_span(struct span span)
{
	return mprotect((void *)(uintptr_t)span.start, span.end - span.start, PROT_READ);
}

static void mark_all(struct span span)
{
	for (uint64_t page = span.start; page < span.end; page += PAGE_BYTES)
		page_set_mark(&written_pages, page);
}

/* False when it cannot be opened, since a filter forbids it. */
static bool open_page(uint64_t address)
{
	uint64_t page = page_floor(address);
	struct span run;
	page_set_mark(&written_pages, page);
	bool opened = open_span((struct span){ page, page + PAGE_BYTES }) == 0;
	if (!opened &&
	    page_set_next(&pages, page, ADDRESS_END, &run)) /* too many mappings: the whole run, which joins them */
		opened = open_span(run) == 0;
	page_set_mark(&written_pages, page);
	return opened;
}

/*
 * Somebody is about to take SIGSEGV: until it is ours again no fault may be, so everything is opened, and counts as
 * written. Told by the sentinel, in a handler.
 */
static void before_change(void)
{
	struct span run;
	chain_touch(&chain);
	atomic_fetch_add(&n_changes, 1);
	for (uint64_t at = 0; page_set_next(&pages, at, ADDRESS_END, &run); at = run.end) {
		mark_all(run);
		open_whole_span(run);
	}
}

/*
 * Whether a store into a page that was ours should be tried again: one that faulted before the page was opened succeeds
 * then. When it faults once more although no page was closed or opened since, somebody else made it read-only. `now`
 * was read before the set of pages.
 */
static bool try_again(uint64_t address, uint64_t now)
{
	static _Thread_local uint64_t tried_address __attribute__((tls_model("initial-exec")));
	static _Thread_local uint64_t tried_at __attribute__((tls_model("initial-exec")));
	bool tried = tried_address == address && tried_at == now;
	tried_address = address;
	tried_at = now;
	return !tried && page_set_has(&former_pages, address);
}

/* Of a thread without storage: its page is opened, and no more. */
static void bare_on_segv(int place, siginfo_t *info, void *context)
{
	uint64_t address = (uint64_t)(uintptr_t)info->si_addr;
	bool ours = info->si_code == SEGV_ACCERR && is_write(context) && page_set_has(&pages, address);
	if (!ours || !open_page(address))
		chain_pass(&chain, place, info, context);
}

static void on_segv(int place, siginfo_t *info, void *context)
{
	int error = errno;
	uint64_t address = (uint64_t)(uintptr_t)info->si_addr;
	struct ring *ring = fault_enter();
	uint64_t now = atomic_load(&n_changes);
	bool store = info->si_code == SEGV_ACCERR && is_write(context);
	bool ours = store && page_set_has(&pages, address);
	if (ours && ring)
		fault_note(ring, address, context);
	ours = ours && open_page(address);
	fault_leave();
	if (!ours && !(store && try_again(address, now)))
		chain_pass(&chain, place, info, context);
	errno = error;
}

/* Remembers where this thread's signals are delivered: a thread can ask for its own alternate stack only. */
static void note_signal_stack(void)
{
	stack_t stack;
	if (sigaltstack(NULL, &stack) < 0 || stack.ss_flags & SS_DISABLE)
		return;
	struct span span = { (uint64_t)(uintptr_t)stack.ss_sp, (uint64_t)(uintptr_t)stack.ss_sp + stack.ss_size };
	for (size_t i = 0; i < SIGNAL_STACKS; i++)
		if (signal_stacks[i].start == span.start && signal_stacks[i].end == span.end)
			return;
	signal_stacks[n_signal_stacks++ % SIGNAL_STACKS] = span;
}

/* The kernel must find a signal's stack open, or the fault's signal is a crash. */
static bool holds_signal_stack(struct span span)
{
	note_signal_stack();
	for (size_t i = 0; i < SIGNAL_STACKS; i++)
		if (signal_stacks[i].start < span.end && span.start < signal_stacks[i].end)
			return true;
	return false;
}

/*
 * Pages of a hugetlb mapping cannot be closed one by one. Moving a page that does not lie on a huge one's border to
 * where it is changes nothing, and is refused there.
 */
static bool has_huge_pages(const struct mapping *mapping)
{
	void *page = (void *)(uintptr_t)(mapping->start + PAGE_BYTES);
	if ((mapping->start | mapping->end) & (HUGE_BYTES - 1))
		return false;
	return mremap(page, PAGE_BYTES, PAGE_BYTES, 0) == MAP_FAILED && errno == EINVAL;
}

/* Only plain memory, and neither the stack that we stand on nor one that signals are known to use. */
static bool may_protect(struct span span)
{
	if (holds_signal_stack(span))
		return false;
	struct mapping mappings[MAPPINGS];
	uint64_t here = (uint64_t)(uintptr_t)__builtin_frame_address(0), at = span.start;
	size_t n = maps_list(span.start, span.end, mappings, MAPPINGS);
	for (size_t i = 0; i < n && i < MAPPINGS; i++) {
		const struct mapping *m = &mappings[i];
		if (m->start > at || !m->readable || !m->writable || m->executable ||
		    (here >= m->start && here < m->end) || has_huge_pages(m))
			return false;
		at = m->end;
	}
	return at >= span.end;
}

static void disarm(struct span span)
{
	atomic_fetch_add(&n_changes, 1);
	open_whole_span(span);
	/* In this order: a handler that does not find the page among ours finds it among the former ones. */
	page_set_add(&former_pages, span);
	page_set_remove(&pages, span);
	page_set_remove(&written_pages, span);
}

static int arm(struct span span)
{
	if (!may_protect(span))
		return -ENOTSUP;
	atomic_fetch_add(&n_changes, 1);
	int error = page_set_reserve(&written_pages, span);
	if (!error)
		error = page_set_reserve(&former_pages, span);
	if (!error)
		error = page_set_add(&pages, span);
	if (error) {
		page_set_remove(&pages, span);
	} else if (close_span(span) < 0) {
		error = -errno;
		disarm(span); /* a part of it may be closed */
	}
	return error;
}

struct finding {
	struct span_list *opened;
	int error;
};

static bool find_opened(const struct mapping *mapping, const char *path, void *arg)
{
	struct finding *finding = arg;
	struct span run;
	(void)path;
	for (uint64_t at = mapping->start;
	     mapping->writable && !finding->error && page_set_next(&pages, at, mapping->end, &run); at = run.end)
		finding->error = span_list_add(finding->opened, run.start, run.end);
	return !finding->error;
}

/*
 * Pages that somebody else has opened, by mprotect or with a mapping in their place. They stay as they are, since we do
 * not know what for. Pages that are marked are open as well.
 */
static int collect_opened(struct span_list *opened)
{
	struct finding finding = { opened, 0 };
	if (atomic_load(&pages.n_pages))
		maps_each(0, ADDRESS_END, find_opened, &finding);
	return finding.error;
}

static int collect(struct span span, struct span_list *written)
{
	struct span run;
	chain_keep(&chain);
	bool may_close = chain_settled(&chain) && !trap_is_silent();
	for (uint64_t at = span.start; page_set_next(&written_pages, at, span.end, &run); at = run.end) {
		int error = span_list_add(written, run.start, run.end);
		if (error)
			return error;
		if (!may_close)
			continue;
		page_set_remove(&written_pages, run);
		if (close_span(run) <
		    0) /* too many mappings: it stays open, and counts as written until it can be closed */
			mark_all(run);
	}
	return 0;
}

/*
 * While pages are closed, somebody else's handler must not stay in front: their faults would be crashes to it. Where
 * the sentinel tells of it they are opened before, and ours comes back soon.
 */
static uint64_t tick(uint64_t now_ns)
{
	bool kept = chain_keep(&chain), settled = chain_settled(&chain);
	if (sentinel_is_on())
		trap_hold();
	uint64_t wish_ns = sentinel_tick(now_ns);
	bool told = sentinel_is_on() && kept && settled;
	return told || !atomic_load(&pages.n_pages) ? wish_ns : now_ns + WRITABLE_WINDOW_MS * NS_PER_MS;
}

static uint64_t handler_lost(void)
{
	return atomic_load(&chain.n_lost);
}

/* Opens everything. */
static void release(void)
{
	struct span run;
	for (uint64_t at = 0; page_set_next(&pages, at, ADDRESS_END, &run); at = run.end)
		disarm(run);
}

/* A user's store must be seen; also binds what the handler calls. */
static bool self_test(void)
{
	struct span_list written = { 0 };
	char *scratch = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (scratch == MAP_FAILED)
		return false;
	struct span span = span_of((uintptr_t)scratch, PAGE_BYTES);
	bool works = arm(span) == 0;
	if (works) {
		*(volatile char *)scratch = 1;
		works = collect(span, &written) == 0 && written.n == 1;
		disarm(span);
	}
	span_list_fini(&written);
	munmap(scratch, PAGE_BYTES);
	return works;
}

static int open_mprotect(struct ring *ring, char *note, size_t note_size)
{
	fault_rehearse(ring);
	note_signal_stack();
	int error = chain_install(&chain);
	if (!error)
		sentinel_watch(SIGSEGV, before_change);
	if (error)
		snprintf(note, note_size, "no handler for SIGSEGV: %s", strerror(-error));
	else if (!self_test())
		error = snprintf(note, note_size, "a store was not seen in the self-test");
	if (error)
		sentinel_unwatch(SIGSEGV);
	return error ? -ENOTSUP : 0;
}

static void close_mprotect(void)
{
	release();
	sentinel_unwatch(SIGSEGV);
}

static void fork_child(void)
{
	sentinel_fork_child();
	release();
}

const struct backend fault_mprotect = {
	.name = "mprotect",
	.hazard = "system calls that write into watched memory fail with EFAULT or fill a part of it, "
		  "datagrams are lost, a "
		  "thread that blocks SIGSEGV dies of its next write: docs/limits.md",
	.pages = &pages,
	.silent_reason = MEMWATCH_REASON_UNKNOWN,
	.open = open_mprotect,
	.close = close_mprotect,
	.arm = arm,
	.disarm = disarm,
	.collect = collect,
	.collect_opened = collect_opened,
	.tick = tick,
	.handler_lost = handler_lost,
	.fork_child = fork_child,
};
