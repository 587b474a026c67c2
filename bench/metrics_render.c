/*
 * metrics_render.c -- what a scrape of 10,000 variables costs, a series: with reading them from the watcher, writing
 * alone, and the same lines by snprintf.
 */
#include "metrics.h"
#include "watching.h"

#include <memwatch/exporter.h>

enum { VARIABLES = 10000, ROUNDS = 21 };

static memwatch_exporter *open_exporter(memwatch *watcher)
{
	struct memwatch_exporter_options options;
	memwatch_exporter *exporter;

	memwatch_exporter_options_init(&options);
	options.port = 0;
	options.runtime_dir = "";
	options.variable_limit = VARIABLES;
	OK(memwatch_exporter_open(watcher, &options, &exporter));
	return exporter;
}

static void watch_numbers(memwatch *watcher, double *numbers)
{
	struct memwatch_region_options options;
	char name[64];

	memwatch_region_options_init(&options);
	options.name = name;
	options.format = "d";
	options.item_bytes = sizeof *numbers;
	for (int i = 0; i < VARIABLES; i++) {
		snprintf(name, sizeof name, "service.shard_%d.queue.depth", i);
		numbers[i] = (double)rand() / 7;
		OK(memwatch_region_add(watcher, &numbers[i], sizeof *numbers, &options, NULL));
	}
}

static size_t count_series(const struct text *text)
{
	size_t n = 0;

	for (size_t i = 0; i < text->n_bytes; i++)
		n += text->data[i] == '\n' && i + 1 < text->n_bytes && text->data[i + 1] != '#';
	return n;
}

/* A whole scrape. */
static double measure_scrape(memwatch_exporter *exporter, struct text *text)
{
	double times[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		double start = thread_ns();

		text->n_bytes = 0;
		OK(metrics_render(exporter, text, 0));
		times[i] = (thread_ns() - start) / (double)count_series(text);
	}
	return median(times, ROUNDS);
}

/* The writing alone: what a scrape does for each sample, from the labels that the last one left. */
static double measure_writing(const struct labels *labels, struct text *text)
{
	static const char name[] = "memwatch_variable_events_total";
	double times[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		double start = thread_ns();

		text->n_bytes = 0;
		for (uint32_t k = 0; k < labels->n; k++) {
			text_bytes(text, name, sizeof name - 1);
			text_bytes(text, labels->entries[k].text, labels->entries[k].text_bytes);
			text_u64(text, labels->entries[k].n_events + k * 97);
			text_char(text, '\n');
		}
		times[i] = (thread_ns() - start) / labels->n;
	}
	return median(times, ROUNDS);
}

static double measure_doubles(const struct labels *labels, struct text *text)
{
	double times[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		double start = thread_ns();

		text->n_bytes = 0;
		for (uint32_t k = 0; k < labels->n; k++)
			text_double(text, labels->entries[k].as_double);
		times[i] = (thread_ns() - start) / labels->n;
	}
	return median(times, ROUNDS);
}

static double measure_snprintf(const struct labels *labels, struct text *text)
{
	double times[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		double start = thread_ns();

		text->n_bytes = 0;
		for (uint32_t k = 0; k < labels->n; k++) {
			OK(text_reserve(text, 256));
			text->n_bytes += (size_t)snprintf(text->data + text->n_bytes, 256, "%s%s%.17g\n",
							  "memwatch_variable_value", labels->entries[k].text,
							  labels->entries[k].as_double);
		}
		times[i] = (thread_ns() - start) / labels->n;
	}
	return median(times, ROUNDS);
}

int main(void)
{
	double *numbers = (double *)map_small_pages(VARIABLES * sizeof *numbers);
	memwatch *watcher = open_watcher("uffd", 0);
	memwatch_exporter *exporter;
	struct text text = { 0 };

	watch_numbers(watcher, numbers);
	exporter = open_exporter(watcher);
	report("memwatch.scrape_a_series", measure_scrape(exporter, &text), "ns");
	report("memwatch.write_a_series", measure_writing(&exporter->labels, &text), "ns");
	report("memwatch.write_a_double", measure_doubles(&exporter->labels, &text), "ns");
	report("snprintf.write_a_series", measure_snprintf(&exporter->labels, &text), "ns");
	text_fini(&text);
	memwatch_exporter_close(exporter);
	memwatch_close(watcher);
	return 0;
}
