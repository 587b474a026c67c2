/*
 * proof.c -- DESIGN: a note is taken before its store. A thread that loses its processor in between, for a whole
 * window, has written nothing when the pass reads its page, which others may have written unnoticed meanwhile. So a
 * note names an author only if its store is known to have run. It is when its thread
 *
 *   has left a later note of another store,
 *   is the one that asks, or is no more,
 *   stands in a system call, which the handler's way back to the store has none of that waits, or
 *   has used more processor time, since its note was there, than that way takes, and left no note of the same store
 *   again.
 *
 * The first is nearly always so, and costs nothing. The rest is asked of the system, for the last note of each thread.
 *
 * Loss: what is not known in time names the page's writer only.
 */
#define _GNU_SOURCE
#include "proof.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WAY_BACK_NS UINT64_C(200000) /* ample: the end of the handler, its return, another fault with its handler */
#define NAP_NS UINT64_C(50000)

enum { THREADS = 64, TRIES = 3 };

/* A thread's last note in the window. */
struct last {
	int32_t thread_id; /* 0: free */
	uint32_t note;
};

struct lasts {
	struct last threads[THREADS];
	uint32_t n;
};

static struct last *last_of(struct lasts *lasts, int32_t thread_id)
{
	uint32_t i = 0;
	while (i < lasts->n && lasts->threads[i].thread_id != thread_id)
		i++;
	if (i == THREADS)
		return NULL;
	lasts->n += i == lasts->n;
	return &lasts->threads[i];
}

/* A thread's further note proves the one before it, unless it is the same store's once more. */
static void chain_notes(struct who *who, struct lasts *lasts)
{
	struct last *last = NULL;
	for (uint32_t i = 0; i < who->n_window; i++) {
		struct taken *note = &who->notes[i];
		if (note->point)
			continue;
		if (!last || last->thread_id != note->thread_id)
			last = last_of(lasts, note->thread_id);
		if (!last)
			continue;
		if (last->thread_id) {
			struct taken *before = &who->notes[last->note];
			before->proven |= before->ip != note->ip || before->address != note->address;
		}
		last->thread_id = note->thread_id;
		last->note = i;
	}
}

/* The processor time that a thread has used; 0: it is no more. */
static uint64_t cpu_used(int32_t thread_id)
{
	enum { SHIFT = 3, OF_A_THREAD = 6 };
	struct timespec used;
	clockid_t clock = (clockid_t)((~(unsigned)thread_id << SHIFT) | OF_A_THREAD);
	if (clock_gettime(clock, &used))
		return 0;
	return (uint64_t)used.tv_sec * NS_PER_S + (uint64_t)used.tv_nsec + 1;
}

/* Does it wait in a system call, or is it no more? */
static bool stands_in_call(int32_t thread_id)
{
	char path[64], text[64];
	snprintf(path, sizeof path, "/proc/self/task/%d/syscall", thread_id);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT;
	ssize_t n = read(fd, text, sizeof text - 1);
	int error = n < 0 ? errno : 0;
	close(fd);
	if (n <= 0)
		return error == ESRCH;
	text[n] = 0;
	char *end;
	long number = strtol(text, &end, 10);
	return end > text && number >= 0 && number != SYS_rt_sigreturn;
}

/* A look at the threads whose last notes are not proven. How many are left. */
static unsigned look_at_threads(struct who *who, struct lasts *lasts)
{
	int32_t self = lasts->n ? (int32_t)gettid() : 0;
	unsigned n_left = 0;
	for (uint32_t i = 0; i < lasts->n; i++) {
		const struct last *last = &lasts->threads[i];
		struct taken *note = &who->notes[last->note];
		if (note->proven)
			continue;
		uint64_t cpu_ns = cpu_used(last->thread_id);
		note->proven = last->thread_id == self || !cpu_ns ||
			       (note->cpu_ns && cpu_ns - note->cpu_ns >= WAY_BACK_NS) ||
			       stands_in_call(last->thread_id);
		if (!note->cpu_ns)
			note->cpu_ns = cpu_ns;
		n_left += !note->proven;
	}
	return n_left;
}

/* A store that met its page closed again leaves a second note: the first one's was not it. */
static bool retract_repeated(struct who *who, const struct lasts *lasts)
{
	bool any = false;
	for (uint32_t n = who->n_window; n < who->n; n++)
		for (uint32_t i = 0; i < lasts->n; i++) {
			struct taken *note = &who->notes[lasts->threads[i].note];
			const struct taken *later = &who->notes[n];
			if (later->thread_id == note->thread_id && later->ip == note->ip &&
			    later->address == note->address) {
				note->proven = false;
				any = true;
			}
		}
	return any;
}

static bool wait_for_stores(struct who *who, struct lasts *lasts, uint64_t patience_ns)
{
	uint64_t end_ns = time_monotonic_ns() + patience_ns, nap_ns = NAP_NS;
	while (look_at_threads(who, lasts)) {
		uint64_t now_ns = time_monotonic_ns();
		if (now_ns >= end_ns)
			return false;
		nap_ns = min_u64(nap_ns, end_ns - now_ns);
		nanosleep(&(struct timespec){ .tv_nsec = (long)nap_ns }, NULL);
		nap_ns *= 2;
	}
	return true;
}

bool proof_take(struct who *who, struct ring *ring, uint64_t patience_ns)
{
	for (unsigned tries = 1;; tries++) {
		struct lasts lasts = { .n = 0 };
		chain_notes(who, &lasts);
		bool all = wait_for_stores(who, &lasts, patience_ns);
		who_drain(who, ring);
		if (!retract_repeated(who, &lasts) || tries == TRIES)
			return all;
		who_close_window(who); /* nothing has been read yet: the second note is as good as the first */
	}
}
