/*
 * complain.h -- this thread's error sentence.
 */
#ifndef COMPLAIN_H
#define COMPLAIN_H

/* Sets the sentence and returns `error`. */
int complain(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for what LMDB returned: 0, or -errno with "`what`: its text". -ENOBUFS: the file may not grow; -ENOSPC: the disk is full. */
int complain_lmdb(int result, const char *what);

#endif
