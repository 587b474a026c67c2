/*
 * variables.c -- DESIGN: the metric families that have a series for each labelled variable. HTTP thread.
 *
 * Ten thousand variables are thirty thousand samples. Each costs the copy of its label and the writing of its number,
 * and nothing else.
 */
#include "text/digits.h"
#include "variables.h"

/* The start of a variable's sample, with room for the rest; where that goes. NULL without memory. */
static inline char *begin(struct text *text, const struct family *family, size_t name_bytes,
			  const struct labels *labels, const struct label *label)
{
	if (text_reserve(text, name_bytes + label->text_bytes + DIGITS_MAX + 1) < 0)
		return NULL;
	char *out = text->data + text->n_bytes;
	memcpy(out, family->name, name_bytes);
	memcpy(out + name_bytes, label_text(labels, label), label->text_bytes);
	return out + name_bytes + label->text_bytes;
}

typedef char *write_number(char *out, const struct labels *labels, uint32_t i, const struct family *family);

/* A series for each variable that `has` one: inlined, since this runs ten thousand times a scrape. */
static inline __attribute__((always_inline)) void write_variables(struct scrape *scrape, const struct family *family,
								  bool (*has)(const struct label *label),
								  write_number *write)
{
	const struct labels *labels = &scrape->exporter->labels;
	struct text *text = scrape->text;
	size_t name_bytes = strlen(family->name);
	for (uint32_t i = 0; i < labels->n; i++) {
		char *out = has(&labels->entries[i]) ? begin(text, family, name_bytes, labels, &labels->entries[i])
						     : NULL;
		if (!out)
			continue;
		out = write(out, labels, i, family);
		*out++ = '\n';
		text->n_bytes = (size_t)(out - text->data);
	}
}

static bool always(const struct label *label)
{
	(void)label;
	return true;
}

static bool has_number(const struct label *label)
{
	return label->number != MEMWATCH_NUMBER_NONE;
}

static bool has_summary(const struct label *label)
{
	return label->has_summary;
}

static char *number_of_events(char *out, const struct labels *labels, uint32_t i, const struct family *family)
{
	(void)family;
	return digits_u64(out, labels->entries[i].n_events);
}

static char *last_change(char *out, const struct labels *labels, uint32_t i, const struct family *family)
{
	(void)family;
	return digits_seconds(out, labels->entries[i].last_time_ns);
}

static char *value(char *out, const struct labels *labels, uint32_t i, const struct family *family)
{
	const struct label *label = &labels->entries[i];
	(void)family;
	if (label->number == MEMWATCH_NUMBER_INT)
		return digits_i64(out, label->value.as_int);
	if (label->number == MEMWATCH_NUMBER_UINT)
		return digits_u64(out, label->value.as_uint);
	return digits_double(out, label->value.as_double);
}

/* One member of the summaries, a double at `offset` in struct memwatch_summary. */
static char *summary_double(char *out, const struct labels *labels, uint32_t i, const struct family *family)
{
	double number;
	memcpy(&number, (const char *)&labels->rests[i].summary + family->offset, sizeof number);
	return digits_double(out, number);
}

static char *summary_nan(char *out, const struct labels *labels, uint32_t i, const struct family *family)
{
	(void)family;
	return digits_u64(out, labels->rests[i].summary.n_nan);
}

void variables_unlabelled(struct scrape *scrape, const struct family *family)
{
	family_u64(scrape, family, NULL, NULL, scrape->exporter->labels.n_unlabelled);
}

void variables_events(struct scrape *scrape, const struct family *family)
{
	write_variables(scrape, family, always, number_of_events);
	family_u64(scrape, family, "variable", LABELS_OVERFLOW, scrape->exporter->labels.overflow_events);
}

void variables_last_change(struct scrape *scrape, const struct family *family)
{
	write_variables(scrape, family, always, last_change);
	family_seconds(scrape, family, LABELS_OVERFLOW, scrape->exporter->labels.overflow_last_ns);
}

/* How many variables have a value, of whatever kind, that this scrape does not show. */
void variables_hidden(struct scrape *scrape, const struct family *family)
{
	const struct labels *labels = &scrape->exporter->labels;
	uint64_t n = 0;
	for (uint32_t i = 0; !scrape->values && i < labels->n; i++)
		n += has_number(&labels->entries[i]) || has_summary(&labels->entries[i]);
	family_u64(scrape, family, NULL, NULL, n);
}

void variables_value(struct scrape *scrape, const struct family *family)
{
	if (scrape->values)
		write_variables(scrape, family, has_number, value);
}

void variables_summary(struct scrape *scrape, const struct family *family)
{
	if (scrape->values)
		write_variables(scrape, family, has_summary, summary_double);
}

void variables_nan(struct scrape *scrape, const struct family *family)
{
	if (scrape->values)
		write_variables(scrape, family, has_summary, summary_nan);
}
