/*
 * vfs.c -- DESIGN: SQLite's own layer for files would do, but for four things that a guest in a process must not do:
 *
 *   - It maps files. Who shortens a mapped file kills the process with SIGBUS. Here everything is read and written by
 *     system calls, and there is no shared memory; so a recording has a rollback journal and no write-ahead log.
 *   - Its locks are the process's: they go when anybody in the process closes the file, also the host's copy of SQLite.
 *     These belong to the open file. They conflict with the others as they should.
 *   - A fork may come while another thread holds one of SQLite's locks; the child then waits for ever in its own use of
 *     SQLite. Here a fork waits until the recorder is outside, and the child's copies of the files are closed, for they
 *     would keep the locks of a parent that was killed.
 *   - It follows links, and takes files that belong to others.
 *
 * Runs on the recorders' threads, between recorder_vfs_enter and _leave. It owns the open files. A system call that
 * fails is an error of SQLite's and leaves its errno; nothing is lost here.
 */
#include "vfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The bytes on which SQLite's processes lock, and ours behind them. */
enum { PENDING = 0x40000000, RESERVED = PENDING + 1, SHARED = PENDING + 2, N_SHARED = 510, OWNER = PENDING + 1024 };

struct file {
	sqlite3_file base;  /* first */
	struct file **link; /* in the list of open files */
	struct file *next;
	const char *path; /* SQLite's, until it is closed */
	int fd;
	int level; /* SQLITE_LOCK_* */
	bool owns;
	bool is_new; /* a journal: its name has to reach the disk with it */
};

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static struct file *files; /* under the gate */
static unsigned n_forks;   /* under the gate */
static _Thread_local int failed_errno;
static _Thread_local const char *refusal;

void recorder_vfs_enter(void)
{
	pthread_mutex_lock(&gate);
}

void recorder_vfs_leave(void)
{
	pthread_mutex_unlock(&gate);
}

int recorder_vfs_errno(void)
{
	int error = failed_errno;
	failed_errno = 0;
	return error;
}

const char *recorder_vfs_refusal(void)
{
	return refusal;
}

/* --- forks --- */

static void fork_prepare(void)
{
	recorder_vfs_enter();
	n_forks++;
}

static void fork_child(void)
{
	for (struct file *file = files; file; file = file->next)
		close(file->fd);
	files = NULL;
	gate = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

/* --- system calls, outside the gate --- */

static int failed(int result)
{
	failed_errno = errno;
	return result;
}

static int file_close(sqlite3_file *base)
{
	struct file *file = (struct file *)base;
	*file->link = file->next;
	if (file->next)
		file->next->link = file->link;
	close(file->fd);
	return SQLITE_OK;
}

static int file_read(sqlite3_file *base, void *buffer, int size, sqlite3_int64 offset)
{
	const struct file *file = (const struct file *)base;
	size_t done = 0;
	ssize_t n = 1;
	recorder_vfs_leave();
	while (done < (size_t)size && n) {
		n = pread(file->fd, (char *)buffer + done, (size_t)size - done, offset + (off_t)done);
		if (n < 0 && errno != EINTR)
			break;
		done += n > 0 ? (size_t)n : 0;
	}
	int result = n < 0 ? failed(SQLITE_IOERR_READ) : SQLITE_OK;
	recorder_vfs_enter();
	if (n < 0 || done == (size_t)size)
		return result;
	memset((char *)buffer + done, 0, (size_t)size - done);
	return SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *base, const void *buffer, int size, sqlite3_int64 offset)
{
	const struct file *file = (const struct file *)base;
	size_t done = 0;
	int result = SQLITE_OK;
	recorder_vfs_leave();
	while (done < (size_t)size && !result) {
		ssize_t n = pwrite(file->fd, (const char *)buffer + done, (size_t)size - done, offset + (off_t)done);
		if (n >= 0)
			done += (size_t)n;
		else if (errno != EINTR)
			result = failed(SQLITE_IOERR_WRITE);
	}
	recorder_vfs_enter();
	return result;
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
	return ftruncate(((struct file *)base)->fd, size) < 0 ? failed(SQLITE_IOERR_TRUNCATE) : SQLITE_OK;
}

static int sync_directory(const char *path)
{
	char directory[PATH_MAX];
	snprintf(directory, sizeof directory, "%s", path);
	char *slash = strrchr(directory, '/');
	*(slash > directory ? slash : directory + 1) = 0;
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = fd < 0 ? -1 : fsync(fd);
	if (fd >= 0)
		close(fd);
	return error;
}

static int file_sync(sqlite3_file *base, int flags)
{
	struct file *file = (struct file *)base;
	(void)flags;
	recorder_vfs_leave();
	int error = fdatasync(file->fd);
	if (!error && file->is_new)
		error = sync_directory(file->path);
	int result = error ? failed(SQLITE_IOERR_FSYNC) : SQLITE_OK;
	file->is_new = false;
	recorder_vfs_enter();
	return result;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *ret_size)
{
	struct stat status;
	if (fstat(((struct file *)base)->fd, &status) < 0)
		return failed(SQLITE_IOERR_FSTAT);
	*ret_size = status.st_size;
	return SQLITE_OK;
}

/* --- locks: the protocol of SQLite's own files --- */

/* F_RDLCK, F_WRLCK or F_UNLCK. Another's lock is SQLITE_BUSY. */
static int lock_bytes(const struct file *file, short type, off_t start, off_t n)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = n };
	if (fcntl(file->fd, F_OFD_SETLK, &lock) == 0)
		return SQLITE_OK;
	return errno == EAGAIN || errno == EACCES ? SQLITE_BUSY : failed(SQLITE_IOERR_LOCK);
}

static int lock_shared(struct file *file)
{
	int result = lock_bytes(file, F_RDLCK, PENDING, 1);
	if (result)
		return result;
	result = lock_bytes(file, F_RDLCK, SHARED, N_SHARED);
	int unlocked = lock_bytes(file, F_UNLCK, PENDING, 1);
	return result ? result : unlocked;
}

/* The pending lock stays when readers are in the way: no new ones come, and the next attempt succeeds. */
static int lock_exclusive(struct file *file)
{
	int result = file->level < SQLITE_LOCK_PENDING ? lock_bytes(file, F_WRLCK, PENDING, 1) : SQLITE_OK;
	if (result)
		return result;
	file->level = SQLITE_LOCK_PENDING;
	return lock_bytes(file, F_WRLCK, SHARED, N_SHARED);
}

static int file_lock(sqlite3_file *base, int level)
{
	struct file *file = (struct file *)base;
	int result = SQLITE_OK;
	if (file->level >= level)
		return SQLITE_OK;
	if (level == SQLITE_LOCK_SHARED)
		result = lock_shared(file);
	else if (level == SQLITE_LOCK_RESERVED)
		result = lock_bytes(file, F_WRLCK, RESERVED, 1);
	else
		result = lock_exclusive(file);
	if (!result)
		file->level = level;
	return result;
}

static int file_unlock(sqlite3_file *base, int level)
{
	struct file *file = (struct file *)base;
	int result = SQLITE_OK;
	if (file->level <= level)
		return SQLITE_OK;
	if (level == SQLITE_LOCK_SHARED)
		result = lock_bytes(file, F_RDLCK, SHARED, N_SHARED);
	if (!result)
		result = lock_bytes(file, F_UNLCK, PENDING, level == SQLITE_LOCK_SHARED ? 2 : 2 + N_SHARED);
	if (!result)
		file->level = level;
	return result;
}

static int file_reserved(sqlite3_file *base, int *ret_reserved)
{
	struct file *file = (struct file *)base;
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = RESERVED, .l_len = 1 };
	if (file->level < SQLITE_LOCK_RESERVED && fcntl(file->fd, F_OFD_GETLK, &lock) < 0)
		return failed(SQLITE_IOERR_CHECKRESERVEDLOCK);
	*ret_reserved = file->level >= SQLITE_LOCK_RESERVED || lock.l_type != F_UNLCK;
	return SQLITE_OK;
}

/* --- the rest --- */

static bool has_moved(const struct file *file)
{
	struct stat open, named;
	return fstat(file->fd, &open) < 0 || lstat(file->path, &named) < 0 || open.st_ino != named.st_ino ||
	       open.st_dev != named.st_dev;
}

static int file_control(sqlite3_file *base, int operation, void *arg)
{
	const struct file *file = (const struct file *)base;
	switch (operation) {
	case SQLITE_FCNTL_HAS_MOVED: *(int *)arg = has_moved(file); return SQLITE_OK;
	case SQLITE_FCNTL_LOCKSTATE: *(int *)arg = file->level; return SQLITE_OK;
	case RECORDER_VFS_OWNS: *(int *)arg = file->owns; return SQLITE_OK;
	default: return SQLITE_NOTFOUND;
	}
}

static int file_sector_size(sqlite3_file *base)
{
	(void)base;
	return 4096;
}

static int file_characteristics(sqlite3_file *base)
{
	(void)base;
	return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods methods = {
	.iVersion = 1,
	.xClose = file_close,
	.xRead = file_read,
	.xWrite = file_write,
	.xTruncate = file_truncate,
	.xSync = file_sync,
	.xFileSize = file_size,
	.xLock = file_lock,
	.xUnlock = file_unlock,
	.xCheckReservedLock = file_reserved,
	.xFileControl = file_control,
	.xSectorSize = file_sector_size,
	.xDeviceCharacteristics = file_characteristics,
};

/* --- opening --- */

/* Why an open file is not to be recorded to; NULL: nothing. */
static const char *objection(int fd)
{
	struct stat status;
	if (fstat(fd, &status) < 0)
		return "cannot be looked at";
	if (!S_ISREG(status.st_mode))
		return "is no regular file";
	if (status.st_uid != geteuid())
		return "belongs to another user: name a file of your own";
	if (status.st_nlink != 1)
		return "has other names (hard links): name a file that has one";
	return status.st_mode & (S_IWGRP | S_IWOTH) ? "can be written by others: chmod go-w" : NULL;
}

/* A child that a fork made meanwhile has the file, too, and nothing closes it there: then it is opened once more. */
static int open_unshared(const char *path)
{
	unsigned before;
	int fd = -1;
	do {
		if (fd >= 0)
			close(fd);
		before = n_forks;
		recorder_vfs_leave();
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
		if (fd < 0)
			failed(0);
		recorder_vfs_enter();
	} while (fd >= 0 && before != n_forks);
	return fd;
}

static int open_checked(const char *path)
{
	refusal = NULL;
	int fd = open_unshared(path);
	if (fd < 0) {
		refusal = failed_errno == ELOOP ? "is a symbolic link: name the file itself" : NULL;
	} else if ((refusal = objection(fd))) {
		close(fd);
		failed_errno = EPERM;
		fd = -1;
	}
	return fd;
}

static int vfs_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *base, int flags, int *ret_flags)
{
	struct file *file = (struct file *)base;
	(void)vfs;
	*file = (struct file){ .path = path, .is_new = flags & SQLITE_OPEN_MAIN_JOURNAL };
	int fd = path ? open_checked(path) : -1;
	if (fd < 0)
		return SQLITE_CANTOPEN;
	file->fd = fd;
	if (flags & SQLITE_OPEN_MAIN_DB)
		file->owns = lock_bytes(file, F_WRLCK, OWNER, 1) == SQLITE_OK;
	file->next = files;
	file->link = &files;
	if (files)
		files->link = &file->next;
	files = file;
	file->base.pMethods = &methods;
	if (ret_flags)
		*ret_flags = flags;
	return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *path, int sync)
{
	(void)vfs;
	/* a journal that comes back after a power failure is rolled back: the last commit is lost, nothing else */
	(void)sync;
	if (unlink(path) == 0)
		return SQLITE_OK;
	return errno == ENOENT ? SQLITE_IOERR_DELETE_NOENT : failed(SQLITE_IOERR_DELETE);
}

/* Links are not followed: the path is opened as it was named, which is from the root. */
static int vfs_full_path(sqlite3_vfs *vfs, const char *path, int size, char *ret_path)
{
	(void)vfs;
	return snprintf(ret_path, (size_t)size, "%s", path) < size ? SQLITE_OK : SQLITE_CANTOPEN;
}

static void vfs_register(void);
static struct {
	sqlite3_vfs vfs;
	char name[32];
} ours;
static pthread_once_t once = PTHREAD_ONCE_INIT;

const char *recorder_vfs_name(void)
{
	pthread_once(&once, vfs_register);
	return ours.vfs.zName;
}

/* The name tells two copies of this library apart. Paths, time and chance are as SQLite's own have them. */
static void vfs_register(void)
{
	const sqlite3_vfs *base = sqlite3_vfs_find("unix");
	if (!base || pthread_atfork(fork_prepare, recorder_vfs_leave, fork_child))
		return;
	ours.vfs = *base;
	ours.vfs.pNext = NULL;
	ours.vfs.szOsFile = sizeof(struct file);
	ours.vfs.xOpen = vfs_open;
	ours.vfs.xDelete = vfs_delete;
	ours.vfs.xFullPathname = vfs_full_path;
	snprintf(ours.name, sizeof ours.name, "memwatch-%p", (void *)&ours);
	ours.vfs.zName = ours.name;
	if (sqlite3_vfs_register(&ours.vfs, 0))
		ours.vfs.zName = NULL;
}
