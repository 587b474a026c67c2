/*
 * family.c -- DESIGN: writes single samples of a metric family. HTTP thread; owns nothing.
 */
#include "family.h"

void family_sample(struct scrape *scrape, const struct family *family, const char *label, const char *value)
{
	struct text *text = scrape->text;
	text_string(text, family->name);
	if (label) {
		text_char(text, '{');
		text_string(text, label);
		text_string(text, "=\"");
		text_label(text, value, strlen(value));
		text_string(text, "\"}");
	}
	text_char(text, ' ');
}

void family_u64(struct scrape *scrape, const struct family *family, const char *label, const char *value,
		uint64_t number)
{
	family_sample(scrape, family, label, value);
	text_u64(scrape->text, number);
	text_char(scrape->text, '\n');
}

void family_seconds(struct scrape *scrape, const struct family *family, const char *variable, uint64_t ns)
{
	family_sample(scrape, family, variable ? "variable" : NULL, variable);
	text_seconds(scrape->text, ns);
	text_char(scrape->text, '\n');
}
