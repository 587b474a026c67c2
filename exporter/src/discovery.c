/*
 * discovery.c -- DESIGN: announces the exporter to tools of the same user. On the thread that opens and closes.
 *
 * The file holds the token, so it is as secret as that. It lies in a directory that belongs to this user and that
 * nobody else can enter, and appears under its name only when it is whole. The directory is opened once, and the file
 * is made and removed in that very directory, whatever its path leads to by then.
 *
 * XDG_RUNTIME_DIR is used only if it is this user's: after `sudo -E` it is somebody else's, in which root's files would
 * keep the owner's own exporters out. After a crash the file stays, until somebody comes (stale.c); who reads it
 * compares the epoch with what answers.
 */
#include "discovery.h"

#include "stale.h"
#include "text/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens a directory that nobody else can have prepared. A descriptor or -errno. */
static int open_own_dir(const char *path, mode_t others)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	struct stat info;
	if (fstat(fd, &info) == 0 && info.st_uid == geteuid() && (info.st_mode & others) == 0)
		return fd;
	close(fd);
	return -EPERM;
}

/* Opens the directory, making it if need be. */
static int make_dir(const char *path)
{
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	return open_own_dir(path, 077);
}

/* In the user's own runtime directory, or else below /tmp. */
static int default_dir(char *path, size_t n_bytes)
{
	const char *base = secure_getenv("XDG_RUNTIME_DIR");
	int base_fd = base && base[0] == '/' ? open_own_dir(base, 022) : -ENOENT;
	int n;
	if (base_fd >= 0) {
		close(base_fd);
		n = snprintf(path, n_bytes, "%s/memwatch", base);
	} else {
		n = snprintf(path, n_bytes, "/tmp/memwatch-%u", (unsigned)geteuid());
	}
	return n < 0 || (size_t)n >= n_bytes ? -ENAMETOOLONG : 0;
}

static void describe(const struct discovery_facts *facts, struct text *text)
{
	text_char(text, '{');
	json_u64(text, "schema", JSON_SCHEMA);
	json_u64(text, "pid", (uint64_t)facts->pid);
	json_u64(text, "process_start_ticks", stale_process_start(facts->pid));
	json_u64(text, "pid_namespace", stale_pid_namespace());
	identity_write_json(facts->identity, text);
	json_string_or_null(text, "url", facts->address);
	json_u64(text, "port", facts->port);
	json_string_or_null(text, "unix_socket", facts->unix_socket);
	json_string(text, "token", facts->token);
	json_string(text, "epoch", facts->epoch);
	text_string(text, "}\n");
}

static int write_all(int fd, const struct text *text)
{
	size_t n_written = 0;
	while (n_written < text->n_bytes) {
		ssize_t n = write(fd, text->data + n_written, text->n_bytes - n_written);
		if (n < 0 && errno != EINTR)
			return -errno;
		n_written += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* Writes `name` in the directory by way of a name that nobody looks for. */
static int write_file(int dir_fd, const char *name, const struct text *text)
{
	char temporary[80];
	snprintf(temporary, sizeof temporary, ".%s", name);
	unlinkat(dir_fd, temporary, 0);
	int fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int error = write_all(fd, text);
	if (close(fd) < 0 && !error)
		error = -errno;
	if (!error && renameat(dir_fd, temporary, dir_fd, name) < 0)
		error = -errno;
	if (error)
		unlinkat(dir_fd, temporary, 0);
	return error;
}

static int announce(struct discovery *discovery, const struct discovery_facts *facts, const char *dir)
{
	int dir_fd = make_dir(dir);
	if (dir_fd < 0)
		return dir_fd;
	stale_remove(dir_fd);
	if (facts->port != 0)
		snprintf(discovery->name, sizeof discovery->name, "%d-%u.json", (int)facts->pid, facts->port);
	else
		snprintf(discovery->name, sizeof discovery->name, "%d-%llx.json", (int)facts->pid,
			 (unsigned long long)facts->socket_ino);
	struct text text = { 0 };
	describe(facts, &text);
	int error = text.failed ? -ENOMEM : write_file(dir_fd, discovery->name, &text);
	if (text.data)
		explicit_bzero(text.data, text.n_bytes);
	text_fini(&text);
	if (error) {
		close(dir_fd);
		return error;
	}
	discovery->dir_fd = dir_fd;
	snprintf(discovery->path, sizeof discovery->path, "%s/%s", dir, discovery->name);
	return 0;
}

int discovery_open(struct discovery *discovery, const struct discovery_facts *facts, const char *runtime_dir)
{
	char dir[DISCOVERY_PATH_MAX];
	if (runtime_dir && runtime_dir[0] == '\0')
		return 0;
	if (runtime_dir)
		return strlen(runtime_dir) < sizeof dir ? announce(discovery, facts, runtime_dir) : -ENAMETOOLONG;
	if (default_dir(dir, sizeof dir) == 0)
		announce(discovery, facts, dir);
	return 0;
}

void discovery_close(struct discovery *discovery)
{
	if (discovery->dir_fd < 0)
		return;
	unlinkat(discovery->dir_fd, discovery->name, 0);
	close(discovery->dir_fd);
	discovery->dir_fd = -1;
}
