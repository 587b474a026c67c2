/*
 * stale.h -- discovery files whose process is gone.
 */
#ifndef STALE_H
#define STALE_H

#include <stdint.h>
#include <sys/types.h>

/* When the process was started, in clock ticks since boot: with its pid no other process's. 0: not known. */
uint64_t stale_process_start(pid_t pid);

/* Which processes our pids name; 0: not known. */
uint64_t stale_pid_namespace(void);

/* Removes from the directory, which is ours, the files of processes that are gone. */
void stale_remove(int dir_fd);

#endif
