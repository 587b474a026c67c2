/*
 * system.h -- what the system says of this process. Any thread, but not handlers.
 */
#ifndef SYSTEM_H
#define SYSTEM_H

#include "../base/base.h"

/* Does a debugger trace the process? It would stop at each of our signals. */
bool system_traced(void);
/* How many threads the process has; a great number when it cannot be told. */
unsigned system_thread_count(void);
/*
 * Calls `attach` for each thread that there is, until no new one comes: those that begin later inherit. Its first
 * error, or 0.
 */
int system_each_thread(int (*attach)(pid_t thread, void *arg), void *arg);

/* Does a thread of this process have the signal pending, because it blocks it? */
bool system_signal_pending(int signal);

/* Reads a number from a file of /proc/sys; -1 when it cannot be read. */
int system_sysctl(const char *path);

#endif
