/*
 * stale.c -- DESIGN: a process that is killed leaves its discovery file, with the token in it. Whoever comes next takes
 * it away. On the opening thread; owns nothing.
 *
 * A file goes only if it is certain that its process is gone: nobody has that pid, or somebody who was started at
 * another time. Pids of another namespace (a container that shares the directory) say nothing here, so those files
 * stay, and likewise what is not ours or not to be understood. `python/memwatch/_discovery.py` does the same.
 */
#include "stale.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 16 * 1024, FILES_MAX = 4096, START_FIELD = 22 };

/* Up to `n_bytes - 1`, and a zero; how many, or -errno. Closes. */
static ssize_t read_and_close(int fd, char *text, size_t n_bytes)
{
	if (fd < 0)
		return -errno;
	ssize_t n = read(fd, text, n_bytes - 1);
	if (n < 0)
		n = -errno;
	text[n > 0 ? n : 0] = '\0';
	close(fd);
	return n;
}

uint64_t stale_process_start(pid_t pid)
{
	char path[32], text[1024];
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	if (read_and_close(open(path, O_RDONLY | O_CLOEXEC), text, sizeof text) <= 0)
		return 0;
	const char *at = strrchr(text, ')'); /* the name may hold anything; the state behind it is the third field */
	for (int field = 2; at && field < START_FIELD; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at, NULL, 10) : 0;
}

uint64_t stale_pid_namespace(void)
{
	struct stat info;
	return stat("/proc/self/ns/pid", &info) == 0 ? info.st_ino : 0;
}

/* A whole number of an object; 0: there is none. */
static uint64_t number_of(const cJSON *object, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
	return cJSON_IsNumber(item) && item->valuedouble > 0 && item->valuedouble < 9e15 ? (uint64_t)item->valuedouble
											 : 0;
}

static bool is_gone(const cJSON *said, uint64_t own_space)
{
	uint64_t pid = number_of(said, "pid"), started = number_of(said, "process_start_ticks");
	if (pid == 0 || pid > INT32_MAX || own_space == 0 || number_of(said, "pid_namespace") != own_space)
		return false;
	if (kill((pid_t)pid, 0) < 0 && errno == ESRCH)
		return true;
	uint64_t now = stale_process_start((pid_t)pid);
	return started != 0 && now != 0 && now != started;
}

/* A file of ours, of one name, that nobody else may read: what it says is what one of us wrote. */
static bool says_it_is_gone(int dir_fd, const char *name, uint64_t own_space)
{
	char text[FILE_BYTES_MAX];
	struct stat info;
	int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (fstat(fd, &info) < 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 077) != 0 ||
	    info.st_nlink != 1) {
		close(fd);
		return false;
	}
	if (read_and_close(fd, text, sizeof text) <= 0)
		return false;
	cJSON *said = cJSON_Parse(text);
	explicit_bzero(text, sizeof text);
	bool gone = said && is_gone(said, own_space);
	cJSON_Delete(said);
	return gone;
}

static bool is_a_discovery_file(const char *name)
{
	size_t n = strlen(name);
	return n > strlen(".json") && strcmp(name + n - strlen(".json"), ".json") == 0;
}

void stale_remove(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		if (fd >= 0)
			close(fd);
		return;
	}
	uint64_t own_space = stale_pid_namespace();
	const struct dirent *entry;
	for (int i = 0; i < FILES_MAX && (entry = readdir(dir)); i++) {
		if (is_a_discovery_file(entry->d_name) && says_it_is_gone(dir_fd, entry->d_name, own_space))
			unlinkat(dir_fd, entry->d_name, 0);
	}
	closedir(dir);
}
