/*
 * backend.h -- what the worker knows of fault/: two small interfaces. A backend notices writes; a source says who
 * wrote. Both are process-wide singletons; the tables of functions are constants that backends.c hands to the worker.
 * What a backend is like stands in its fields, so that nobody asks for its name: a new one is a file in fault/ and a
 * row in fault/table.h.
 */
#ifndef BACKEND_H
#define BACKEND_H

#include "pages.h"
#include "ring.h"

/* Who wrote. Its notes go to the ring; the worker does not know how they came. */
struct source_stats {
	uint64_t signals, ours, foreign, stepped, throttled_ns, handler_lost;
	int available, filtered;
};

enum contest { CONTEST_NO_ROOM, CONTEST_FREE, CONTEST_KNOWN };

struct backend;

struct source {
	const char *name;
	/* Notes writes to the backend's pages. `budget`: share of one core. -ENOTSUP with a sentence in `note`. */
	int (*open)(struct ring *ring, const struct backend *backend, double budget, char *note, size_t note_size);
	void (*close)(void);
	/* Pages came or went; the worker's or a caller's thread, under the engine's lock. */
	void (*pages_changed)(struct span span, bool added);
	/*
	 * Pages that regions hold in part, where neighbours may write: contest makes the page's mask (a bit of
	 * PAGE_BYTES for each byte of a region), hold sets or clears bits of it, forget drops it.
	 */
	enum contest (*contested)(uint64_t page);
	void (*contest)(uint64_t page, const uint64_t *mask);
	void (*hold)(uint64_t start, uint64_t end, bool held);
	void (*forget)(struct span span);
	/* Pages that were open for a moment without trace: they count as written, by nobody knows whom. */
	struct page_set *unseen;
	/* Is one of them being closed? Then what was taken from `unseen` must be put back, to be looked at again. */
	bool (*closing)(void);
	/*
	 * Now and then, on the worker: budget, ownership of the handler, debuggers. When to come again at the latest.
	 */
	uint64_t (*tick)(uint64_t now_ns);
	/* A full pass begins: what is outstanding now is not held against the window after the next one. */
	void (*mark)(void);
	/*
	 * Why a page written since `since_ns` (CLOCK_MONOTONIC) has no note. MEMWATCH_REASON_KERNEL: a system call
	 * opened it; who wrote to it then is another question.
	 */
	enum memwatch_reason (*absence)(uint64_t since_ns);
	void (*stats)(struct source_stats *ret_stats);
	void (*fork_child)(void);
};

/* A look is taken in parts, which have prices of their own: what has its turn, then what changed lately. */
enum look_part { LOOK_ROUND, LOOK_HOT, LOOK_PARTS };

/* What a part of a look cost, in CPU time. */
struct look_cost {
	uint64_t compare_ns; /* to compare what was taken, */
	uint64_t tell_ns;    /* and to tell of changes */
};

/*
 * How a backend that cannot tell what was written is looked at: in turn, within a budget. A flush looks at all of it,
 * by `collect`. On the worker, under the engine's lock.
 */
struct turns {
	/*
	 * A look begins, after a wake-up that cost so much CPU time. `share`: what looks may use of one core. False:
	 * there is nothing to look at, and nothing to come.
	 */
	bool (*begin)(uint64_t now_ns, double share, uint64_t wake_ns);
	/* Appends what a part is to compare, */
	void (*take)(enum look_part part, uint64_t now_ns, struct span_list *looks);
	/* and says what that cost, where there was something. */
	void (*charge)(enum look_part part, struct look_cost cost);
	/* The look is over. Returns when the next is due, `least_ns` from now at least. */
	uint64_t (*end)(uint64_t now_ns, double share, uint64_t least_ns);
	/* A look found bytes of [start, end) changed. */
	void (*changed)(uint64_t start, uint64_t end, uint64_t now_ns);
	/* How long it may take until each byte has been looked at. */
	uint64_t (*round_ns)(double share);
};

/*
 * Called under the engine's lock, but for fork_child. A span given to `arm` holds no page of `pages` yet; the backend
 * adds what it armed to `pages` (more than asked where the kernel's page is larger), the caller gives the rest to the
 * next backend.
 */
struct backend {
	const char *name;
	struct page_set *pages;      /* armed by this backend */
	const struct source *source; /* says who wrote to its pages; NULL: it takes its notes itself, or has none */
	/*
	 * Collects every page of a span, written or not; takes any memory and always opens. NULL: `collect` tells what
	 * was written.
	 */
	const struct turns *turns;
	/* What it may do to the process: such a backend is opened only when it is asked for by name. NULL: nothing. */
	const char *hazard;
	/* Why a page of it was written without a note; NONE: `source` tells. */
	enum memwatch_reason silent_reason;
	/* Probes with a self-test on a scratch page and gets ready. -ENOTSUP with a sentence in `note`. */
	int (*open)(struct ring *ring, char *note, size_t note_size);
	void (*close)(void);
	/* Arms the pages of a span; on failure none is armed. */
	int (*arm)(struct span span);
	void (*disarm)(struct span span);
	/* Arms one page again, which has been armed before; for its source. Signal-safe. */
	void (*rearm)(uint64_t page);
	/*
	 * Appends the pages of `span` that were written since the last collect, re-armed in the same step: what is
	 * read afterwards is not older than any write that was collected. -ENOMEM: nothing is lost, ask again.
	 */
	int (*collect)(struct span span, struct span_list *written);
	/* The same for pages that somebody else has opened, which it leaves open. Of a full pass; may be NULL. */
	int (*collect_opened)(struct span_list *opened);
	/* Appends those that were written since, without arming them; may be NULL. */
	void (*peek)(struct span span, struct span_list *written);
	/* Now and then, on the worker; may be NULL. Returns when to come again at the latest, 0: no wish. */
	uint64_t (*tick)(uint64_t now_ns);
	/* How often somebody had replaced its signal handler; may be NULL. */
	uint64_t (*handler_lost)(void);
	/* In the child of a fork, single-threaded: makes the pages ordinary memory again, gives up descriptors. */
	void (*fork_child)(void);
};

#endif
