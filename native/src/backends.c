/*
 * backends.c -- which backends there are, which of them a watcher gets, and why not another. On the threads of those
 * who open or close a watcher, one at a time. The notes stay when an engine ends: they are what the last probe found.
 */
#define _GNU_SOURCE
#include "backends.h"

#include "fault/fault.h"
#include "fault/table.h"

#include <stdio.h>
#include <string.h>

#define ROW(name) &fault_##name,
static const struct backend *const all_backends[] = { FAULT_BACKENDS(ROW) };
enum { N_BACKENDS = sizeof all_backends / sizeof *all_backends };
static_assert(sizeof all_backends / sizeof *all_backends <= BACKENDS_MAX, "the engine has room for all");

static struct backend_note notes[N_BACKENDS]; /* as source_note, under the engine's lock and its lifetime's */
static char source_note[200];

static bool is_open(const struct engine *engine, const struct backend *backend)
{
	for (unsigned b = 0; b < engine->n_backends; b++)
		if (engine->backends[b] == backend)
			return true;
	return false;
}

static int open_nth(struct engine *engine, unsigned b)
{
	const struct backend *backend = all_backends[b];
	struct backend_note *note = &notes[b];
	if (is_open(engine, backend))
		return 0;
	note->text[0] = 0;
	int error = backend->open(&engine->ring, note->text, sizeof note->text);
	note->probed = true;
	note->usable = !error;
	if (!error)
		engine->backends[engine->n_backends++] = backend;
	if (!error && backend->hazard)
		snprintf(note->text, sizeof note->text, "%s", backend->hazard);
	return error;
}

/* Without one, the watchers go without authors. */
static void source_open(struct engine *engine, const struct backend *backend)
{
	const struct source *source = backend->source;
	if (!source || engine->source || engine->budget == 0)
		return;
	source_note[0] = 0;
	if (source->open(&engine->ring, backend, engine->budget, source_note, sizeof source_note) == 0)
		engine->source = source;
}

int backends_begin(struct engine *engine)
{
	unsigned b = 0;
	while (b + 1 < N_BACKENDS && !all_backends[b]->turns)
		b++;
	engine->fallback = all_backends[b];
	return open_nth(engine, b);
}

/* Opens the one of that name: its number, or -errno with a sentence. */
static int open_named(struct engine *engine, const char *name)
{
	char names[128];
	int length = snprintf(names, sizeof names, "auto");
	for (unsigned b = 0; b < N_BACKENDS; b++) {
		const char *known = all_backends[b]->name;
		if (strcmp(name, known) == 0) {
			int error = open_nth(engine, b);
			return error ? error_set(error, "the backend %s cannot run here: %s", name, notes[b].text)
				     : (int)b;
		}
		length += snprintf(names + length, sizeof names - (size_t)length, "%s%s",
				   b + 1 < N_BACKENDS ? ", " : " and ", known);
	}
	return error_set(-EINVAL, "no backend is named \"%s\"; there are %s", name, names);
}

/* Opens the first that can run without a hazard, and the fallback can: its number. */
static int open_first(struct engine *engine)
{
	for (unsigned b = 0; b < N_BACKENDS; b++)
		if (!all_backends[b]->hazard && open_nth(engine, b) == 0)
			return (int)b;
	return error_set(-ENOTSUP, "no backend can run here");
}

int backends_number(struct engine *engine, const char *name)
{
	int b = strcmp(name, "auto") == 0 ? open_first(engine) : open_named(engine, name), number = 0;
	if (b < 0)
		return b;
	while (engine->backends[number] != all_backends[b])
		number++;
	source_open(engine, all_backends[b]);
	return number;
}

int backends_choose(struct engine *engine, const struct memwatch_options *options, struct memwatch *watcher)
{
	int number = backends_number(engine, options->backend && *options->backend ? options->backend : "auto");
	if (number < 0)
		return number;
	watcher->backend = engine->backends[number];
	return 0;
}

/* Whether it could be opened. One with a hazard is not opened to see: its handler would stay. */
static void probe(struct engine *engine, unsigned b)
{
	const struct backend *backend = all_backends[b];
	struct backend_note *note = &notes[b];
	if (!backend->hazard) {
		if (open_nth(engine, b) == 0)
			source_open(engine, backend);
		return;
	}
	note->probed = note->usable = true;
	snprintf(note->text, sizeof note->text, "%s", backend->hazard);
}

void backends_probe(struct engine *engine)
{
	for (unsigned b = 0; b < N_BACKENDS; b++)
		probe(engine, b);
}

bool backends_close(struct engine *engine)
{
	if (engine->source)
		engine->source->close();
	engine->source = NULL;
	bool quiet = fault_ring_set(NULL);
	while (engine->n_backends)
		engine->backends[--engine->n_backends]->close();
	return quiet;
}

void backends_fork_child(struct engine *engine)
{
	if (engine->source)
		engine->source->fork_child();
	for (unsigned b = 0; b < engine->n_backends; b++) {
		const struct backend *backend = engine->backends[b];
		struct span run;
		backend->fork_child();
		for (uint64_t at = 0; page_set_next(backend->pages, at, ADDRESS_END, &run); at = run.end)
			page_set_remove(backend->pages, run);
	}
}

void backends_notes(struct backend_notes *ret_notes)
{
	*ret_notes = (struct backend_notes){ .n = N_BACKENDS };
	memcpy(ret_notes->source, source_note, sizeof source_note);
	for (unsigned b = 0; b < N_BACKENDS; b++) {
		ret_notes->backends[b] = notes[b];
		ret_notes->backends[b].name = all_backends[b]->name;
	}
}
