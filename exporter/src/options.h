/*
 * options.h -- what the caller of memwatch_exporter_open() asks for: checked, and read into memory.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <memwatch/exporter.h>
#include <stdbool.h>

/* What was given, over the defaults (NULL: these alone). 0, or -EINVAL, -EACCES with a sentence. */
int exporter_options_take(const struct memwatch_exporter_options *given, struct memwatch_exporter_options *ret_options);

/* May it be another port, since nobody chose this one? */
bool exporter_options_any_port(const struct memwatch_exporter_options *options);

/* The whole file as a string, which the caller frees. 0 or -errno with a sentence; -EFBIG: no PEM file is that long. */
int exporter_options_read_pem(const char *path, char **ret_text);

#endif
