/*
 * who.h -- the notes of a window, by page: whose fault explains a change. The worker's alone.
 */
#ifndef WHO_H
#define WHO_H

#include "../base/region.h"
#include "../base/ring.h"
#include "diff.h"

struct taken {
	uint64_t time_ns, address, ip;
	uint64_t place; /* in the ring, which is the order in which notes were begun */
	int32_t thread_id;
	uint32_t location;
	uint32_t next;   /* of the same page, 0: none, else index + 1 */
	bool told;       /* a pass that is over may have read what it stored: it is no later change's author */
	bool proven;     /* its store had run when the pass began to read */
	uint64_t cpu_ns; /* that its thread had used when it was first asked whether it had; 0: it was not */
	/* Of a hit, which comes after its store; `point` 0: it is a fault's note, taken before. */
	uint32_t point;
	uint64_t old_value, new_value;
};

/* What the instruction at `ip` stores; kept for a pass, since code can be written anew. */
struct store {
	uint64_t ip;
	uint32_t width; /* bytes from the address on; 0: not known */
	bool reads;     /* it certainly only reads: no author */
};

/* These pages were read when the ring had been given so many notes. */
struct reading {
	struct span pages;
	uint64_t n_noted;
};

enum { STORES = 256, READINGS = 128 };

struct who {
	int32_t own_thread_id; /* the worker's: it opens pages, it is never a writer; */
	int32_t resolver_id;   /* and the one that looks symbols up */
	struct taken *notes;   /* in the order in which they came */
	uint32_t n;
	size_t capacity;
	uint32_t n_indexed;
	uint32_t n_collected;        /* those that were there when the pass began, which collects their pages */
	uint32_t n_window;           /* those that were there when the window ended; what comes later proves nothing */
	uint64_t n_drained;          /* of the ring's notes, from its first on: those that have been taken */
	uint64_t n_closed;           /* of them, those that had been when the window ended */
	uint64_t n_told;             /* of the ring's notes, from its first on: those that come only now are told */
	uint64_t n_added;            /* of them, those that had been when a region was added last */
	uint32_t *heads;             /* hash of pages to index + 1 of the first note */
	uint32_t n_heads;            /* a power of two */
	struct store stores[STORES]; /* by a hash of ip */
	/* Those that may hold what came since the window ended: by address, without overlaps. */
	struct reading readings[READINGS];
	uint32_t n_readings;
};

void who_fini(struct who *who);
/* Takes what is in the ring. Without memory a note is lost, counted in the ring's drops. */
void who_drain(struct who *who, struct ring *ring);
/* Begins a pass: drains, and what is there then has its pages collected. */
void who_begin(struct who *who, struct ring *ring);
/* A region is there from now on: what has been noted so far is older than it. */
void who_added(struct who *who, const struct ring *ring);
/* Takes a note otherwise. Without memory it is lost; false. */
bool who_add(struct who *who, const struct taken *note);
/* What has been drained is the window. */
void who_close_window(struct who *who);
/* Makes the index; to be called again after a drain. */
void who_index(struct who *who);
/* The indexed note after `before` (NULL: the first) on the page of `address`, or NULL. In the order they came in. */
const struct taken *who_next(const struct who *who, uint64_t address, const struct taken *before);
/* Is it memwatch itself that wrote? */
bool who_is_own(const struct who *who, const struct taken *note);
/* These pages have been read, when the ring had been given `n_noted` notes. */
void who_read(struct who *who, struct span pages, uint64_t n_noted);
/*
 * After a pass has read all of `written` and `polled`, at last when the ring had been given `n_read` notes: of those on
 * these pages it may have told what was there when their page was read. Drains first, since a store that was read has
 * its note in the ring.
 */
void who_told(struct who *who, struct ring *ring, const struct span_list *written, const struct span_list *polled,
	      uint64_t n_read);
/*
 * After a pass: keeps the notes that may belong to the next window. Those are taken at or after `since_ns`
 * (CLOCK_REALTIME), or came when the pass had begun, which did not collect their pages for them and has not told them.
 */
void who_keep(struct who *who, uint64_t since_ns);

/*
 * The note that explains a change in the region: one of the window, and of the region's life, whose store overlaps the
 * changed bytes and that no pass has told (exact), else the first on a page of theirs (page), else NULL; then `ret_own`
 * says whether memwatch itself opened the page.
 */
const struct taken *who_find(struct who *who, const struct region *region, const struct diff *diff,
			     enum memwatch_attribution *ret_attribution, bool *ret_own);

#endif
