/*
 * backends.h -- which backends there are, which of them a watcher gets, and why not another. Under the engine's lock.
 */
#ifndef BACKENDS_H
#define BACKENDS_H

#include "worker/engine.h"

/* What probing a backend found: why not, or what to know. */
struct backend_note {
	const char *name;
	bool probed, usable;
	char text[200];
};

struct backend_notes {
	struct backend_note backends[BACKENDS_MAX]; /* in the order in which `auto` tries them */
	size_t n;
	char source[200];
};

/* Opens the one that takes what the others cannot. 0 or -errno. */
int backends_begin(struct engine *engine);
/* Opens what the options ask for; the watcher's backend is set. -EINVAL, -ENOTSUP with a sentence. */
int backends_choose(struct engine *engine, const struct memwatch_options *options, struct memwatch *watcher);
/*
 * Opens the backend of that name ("auto": the first that can run): its number in the engine, or -errno with a
 * sentence.
 */
int backends_number(struct engine *engine, const char *name);
/* Opens all that can be opened, and the source of notes. */
void backends_probe(struct engine *engine);
/* Closes the source and all backends. False when a handler may still write into the ring, now and later. */
bool backends_close(struct engine *engine);
/* In the child of a fork, where nobody else runs: see the hook of the same name in struct backend. */
void backends_fork_child(struct engine *engine);

void backends_notes(struct backend_notes *ret_notes);

#endif
