/*
 * metrics_render.c -- what a scrape costs, a series, with 10,000 series and with 30,000 (three a variable): the whole
 * of it, when no value and when every value has changed since the last one; reading the variables from the watcher and
 * writing alone; and the same lines by snprintf. All variables are doubles with full mantissas that have changed at
 * least once.
 */
#include "metrics/labels.h"
#include "metrics/metrics.h"
#include "server.h"
#include "watching.h"

#include <memwatch/exporter.h>

enum { FEW = 3333, MANY = 10000, SERIES = 3, ROUNDS = 51 };

static int n_variables;

static memwatch_exporter *open_exporter(memwatch *watcher)
{
	struct memwatch_exporter_options options;
	memwatch_exporter *exporter;

	memwatch_exporter_options_init(&options);
	options.port = 0;
	options.runtime_dir = "";
	options.variable_limit = MANY;
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
	for (int i = 0; i < n_variables; i++) {
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

/* Writes all variables anew, each to its last bit, and waits for the events. */
static void change(memwatch *watcher, double *numbers)
{
	for (int i = 0; i < n_variables; i++)
		numbers[i] = (double)rand() / 7;
	OK(memwatch_flush(watcher, 10000));
}

/* A whole scrape; before each, all values change if `numbers` is given. */
static double measure_scrape(memwatch_exporter *exporter, struct text *text, double *numbers)
{
	double times[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		double start;

		if (numbers != NULL)
			change(exporter->watcher, numbers);
		text->n_bytes = 0;
		start = thread_ns();
		OK(metrics_render(exporter, text, 0, true));
		times[i] = thread_ns() - start;
		times[i] /= (double)count_series(text);
	}
	return median(times, ROUNDS);
}

/* The reading alone: for each of the three series that a variable has here. */
static double measure_reading(memwatch_exporter *exporter)
{
	double times[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		double start = thread_ns();

		OK(labels_collect(&exporter->labels, exporter->watcher));
		times[i] = (thread_ns() - start) / n_variables / SERIES;
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
			text_bytes(text, label_text(labels, &labels->entries[k]), labels->entries[k].text_bytes);
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
			text_double(text, labels->entries[k].value.as_double);
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
			text->n_bytes += (size_t)snprintf(text->data + text->n_bytes, 256, "%s%.*s%.17g\n",
							  "memwatch_variable_value", (int)labels->entries[k].text_bytes,
							  label_text(labels, &labels->entries[k]),
							  labels->entries[k].value.as_double);
		}
		times[i] = (thread_ns() - start) / labels->n;
	}
	return median(times, ROUNDS);
}

static void report_for(int n, const char *name, double ns)
{
	char row[100];

	snprintf(row, sizeof row, "%s.%d_series", name, (n * SERIES + 500) / 1000 * 1000);
	report(row, ns, "ns");
}

static void run(int n)
{
	double *numbers = (double *)map_small_pages((size_t)n * sizeof *numbers);
	memwatch *watcher = open_watcher("uffd", 0);
	memwatch_exporter *exporter;
	struct text text = { 0 };

	n_variables = n;
	watch_numbers(watcher, numbers);
	exporter = open_exporter(watcher);
	change(watcher, numbers);
	OK(metrics_render(exporter, &text, 0, true)); /* writes the labels */
	report_for(n, "memwatch.scrape", measure_scrape(exporter, &text, NULL));
	report_for(n, "memwatch.scrape_all_changed", measure_scrape(exporter, &text, numbers));
	report_for(n, "memwatch.read_alone", measure_reading(exporter));
	report_for(n, "memwatch.write_alone", measure_writing(&exporter->labels, &text));
	report_for(n, "memwatch.write_double", measure_doubles(&exporter->labels, &text));
	report_for(n, "snprintf.write", measure_snprintf(&exporter->labels, &text));
	text_fini(&text);
	memwatch_exporter_close(exporter);
	memwatch_close(watcher);
}

int main(void)
{
	run(FEW);
	run(MANY);
	return 0;
}
