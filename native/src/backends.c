/*
 * backends.c -- which backends there are, which of them a watcher gets, and why not another. On the threads of those who open or
 * close a watcher, one at a time. The notes stay when an engine ends: they are what the last probe found.
 */
#define _GNU_SOURCE
#include "backends.h"

#include "fault/fault.h"

#include <stdio.h>
#include <string.h>

static struct backend_notes notes; /* under lifetime.c's lock, and, while there is an engine, under that of the engine */

static const struct backend *const all_backends[BACKENDS] = { &fault_uffd, &fault_poll, &fault_mprotect };

static void tell_hazard(enum backend_id b)
{
	snprintf(notes.backends[b], sizeof notes.backends[b], "%s", all_backends[b]->hazard);
}

int backends_open(struct engine *engine, enum backend_id b)
{
	if (engine->backends[b])
		return 0;
	notes.backends[b][0] = 0;
	int error = all_backends[b]->open(&engine->ring, notes.backends[b], sizeof notes.backends[b]);
	notes.probed[b] = true;
	notes.usable[b] = !error;
	if (!error)
		engine->backends[b] = all_backends[b];
	if (!error && all_backends[b]->hazard)
		tell_hazard(b);
	return error;
}

static void source_open(struct engine *engine)
{
	if (engine->source || engine->budget == 0)
		return;
	notes.source[0] = 0;
	if (fault_sigtrap.open(&engine->ring, fault_uffd.pages, engine->budget, notes.source, sizeof notes.source) == 0)
		engine->source = &fault_sigtrap;
}

static int by_name(const char *name)
{
	for (int b = 0; b < BACKENDS; b++)
		if (strcmp(name, all_backends[b]->name) == 0)
			return b;
	return -1;
}

int backends_choose(struct engine *engine, const struct memwatch_options *options, struct memwatch *watcher)
{
	const char *name = options->backend && *options->backend ? options->backend : "auto";
	int b = by_name(name), error;
	if (b < 0 && strcmp(name, "auto") != 0)
		return error_set(-EINVAL, "no backend is named \"%s\"; there are auto, uffd, poll and mprotect", name);
	if (b < 0) {
		for (b = 0; all_backends[b]->hazard || backends_open(engine, (enum backend_id)b); b++)
			;
	} else {
		error = backends_open(engine, (enum backend_id)b);
		if (error)
			return error_set(error, "the backend %s cannot run here: %s", name, notes.backends[b]);
	}
	watcher->backend = (uint8_t)b;
	if (b == BACKEND_UFFD)
		source_open(engine);
	return 0;
}

/* Whether it could be opened. One with a hazard is not opened to see: its handler would stay. */
static void probe(struct engine *engine, enum backend_id b)
{
	if (!all_backends[b]->hazard) {
		backends_open(engine, b);
		return;
	}
	notes.probed[b] = notes.usable[b] = true;
	tell_hazard(b);
}

void backends_probe(struct engine *engine)
{
	for (int b = 0; b < BACKENDS; b++)
		probe(engine, (enum backend_id)b);
	if (engine->backends[BACKEND_UFFD])
		source_open(engine);
}

bool backends_close(struct engine *engine)
{
	if (engine->source)
		engine->source->close();
	engine->source = NULL;
	bool quiet = fault_ring_set(NULL);
	for (int b = 0; b < BACKENDS; b++) {
		if (engine->backends[b])
			engine->backends[b]->close();
		engine->backends[b] = NULL;
	}
	return quiet;
}

void backends_fork_child(struct engine *engine)
{
	if (engine->source)
		engine->source->fork_child();
	for (int b = 0; b < BACKENDS; b++) {
		struct span run;
		if (engine->backends[b])
			engine->backends[b]->fork_child();
		for (uint64_t at = 0; page_set_next(all_backends[b]->pages, at, ADDRESS_END, &run); at = run.end)
			page_set_remove(all_backends[b]->pages, run);
	}
}

void backends_notes(struct backend_notes *ret_notes)
{
	*ret_notes = notes;
}
