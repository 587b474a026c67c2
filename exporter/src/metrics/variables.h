/*
 * variables.h -- the families that have a series a variable. HTTP thread.
 */
#ifndef VARIABLES_H
#define VARIABLES_H

#include "family.h"

/* What the table calls for the families that have a series a variable. */
void variables_unlabelled(struct scrape *scrape, const struct family *family);
void variables_events(struct scrape *scrape, const struct family *family);
void variables_last_change(struct scrape *scrape, const struct family *family);
void variables_hidden(struct scrape *scrape, const struct family *family);
void variables_value(struct scrape *scrape, const struct family *family);
void variables_summary(struct scrape *scrape, const struct family *family); /* `offset` in struct memwatch_summary */
void variables_nan(struct scrape *scrape, const struct family *family);

#endif
