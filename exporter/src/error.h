/*
 * error.h -- this thread's error sentence, which memwatch_exporter_error() gives out.
 */
#ifndef ERROR_H
#define ERROR_H

/* Sets the sentence and returns `error`. */
int exporter_error(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
