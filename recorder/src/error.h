/*
 * error.h -- this thread's error sentence.
 */
#ifndef RECORDER_ERROR_H
#define RECORDER_ERROR_H

/* Sets the sentence and returns `error`. */
int recorder_error_set(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
