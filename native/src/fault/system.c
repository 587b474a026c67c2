/*
 * system.c -- DESIGN: what the system says of this process: its debugger, its threads, its mappings. Runs on the
 * worker's or a caller's thread. Owns nothing.
 *
 * Loss: what cannot be read is not there.
 */
#define _GNU_SOURCE
#include "system.h"

#include "../base/syscalls.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool system_traced(void)
{
	return status_number("/proc/self/status", "TracerPid:") > 0;
}

unsigned system_thread_count(void)
{
	struct stat tasks;
	enum { DOTS = 2 };
	return stat("/proc/self/task", &tasks) == 0 && tasks.st_nlink >= DOTS ? (unsigned)tasks.st_nlink - DOTS
									      : UINT32_MAX;
}

/* One round over the threads: attaches to those that are not in `known` yet. */
static int attach_new(int (*attach)(pid_t thread, void *arg), void *arg, struct span_list *known, bool *ret_found)
{
	struct dirent *entry;
	int error = 0;
	DIR *tasks = opendir("/proc/self/task");
	if (!tasks)
		return -errno;
	while (!error && (entry = readdir(tasks))) {
		uint64_t thread = (uint64_t)atoi(entry->d_name);
		size_t i = 0;
		while (i < known->n && !(thread >= known->spans[i].start && thread < known->spans[i].end))
			i++;
		if (!thread || i < known->n)
			continue;
		error = attach((pid_t)thread, arg);
		if (!error)
			error = span_list_add(known, thread, thread + 1);
		*ret_found = true;
	}
	closedir(tasks);
	return error;
}

int system_each_thread(int (*attach)(pid_t thread, void *arg), void *arg)
{
	struct span_list known = { 0 };
	int error = 0;
	for (bool found = true; found && !error;) {
		found = false;
		error = attach_new(attach, arg, &known, &found);
	}
	span_list_fini(&known);
	return error;
}

/* Of one thread: the mask behind "SigPnd:". */
static bool has_pending(const char *thread, int signal)
{
	char path[64], line[128];
	unsigned long long pending = 0;
	snprintf(path, sizeof path, "/proc/self/task/%.20s/status", thread);
	FILE *status = fopen(path, "re");
	while (status && fgets(line, sizeof line, status))
		if (sscanf(line, "SigPnd: %llx", &pending) == 1)
			break;
	if (status)
		fclose(status);
	return pending >> (signal - 1) & 1;
}

bool system_signal_pending(int signal)
{
	struct dirent *entry;
	bool pending = false;
	DIR *tasks = opendir("/proc/self/task");
	while (tasks && !pending && (entry = readdir(tasks)))
		pending = entry->d_name[0] != '.' && has_pending(entry->d_name, signal);
	if (tasks)
		closedir(tasks);
	return pending;
}

int system_sysctl(const char *path)
{
	char text[32];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return -1;
	text[n] = 0;
	return atoi(text);
}
