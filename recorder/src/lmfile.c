/*
 * lmfile.c -- DESIGN: LMDB must not be opened twice on one file in one process (its locks are the process's), so the open
 * files are in a list, by device and inode, and counted. A reader's environment is replaced by a writable one when a recorder
 * comes to it: every transaction runs under the file's lock for reading, the replacement under it for writing.
 *
 * A writer holds flock(2) on the data file. Such a lock is shared with forked children, so a child closes its descriptor at
 * once; nothing else of what it inherited is touched there.
 *
 * Against harm: pages are checked before they are followed (check.h); the file has its whole length from the start, so that no
 * reading of the map goes beyond its end, and is measured before every write; what LMDB asserts ends in the caller's error and
 * in never touching this environment again, not in abort().
 */
#include "lmfile.h"

#include "check.h"
#include "complain.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
	LOCKS_MAX = 64,
	FILE_MODE = 0600,
	READERS_MAX = 126,
	LOCK_FILE_BYTES = 8192 /* what LMDB needs for that many */
};

/* A writer's descriptor; in `lock_fds` from the moment it is opened. */
struct lock {
	int fd; /* -1: none */
	_Atomic int *entry;
};

struct lmfile {
	struct lmfile *next; /* under `registry` */
	unsigned n_users;    /* under `registry` */
	dev_t device;
	ino_t inode;
	pid_t pid;
	char *path;            /* absolute */
	pthread_rwlock_t lock; /* reading: a transaction is under way. Writing: the environment is replaced */
	MDB_env *env;          /* NULL: it could not be opened again */
	MDB_dbi dbi;
	bool writable;
	_Atomic bool broken;   /* an assertion failed inside: never touched again, not even to close it */
	struct lock lock_file; /* the writer's */
	uint64_t min_bytes;    /* what the file must have at least while it is written */
};

static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static struct lmfile *files;            /* under `registry` */
static _Atomic int lock_fds[LOCKS_MAX]; /* descriptor + 1 of the writers' locks; read by the child of a fork */
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER; /* no fork between an open and its entry in `lock_fds` */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* --- forks --- */

static void before_fork(void)
{
	pthread_mutex_lock(&opening);
}

static void in_parent(void)
{
	pthread_mutex_unlock(&opening);
}

static void in_child(void)
{
	pthread_mutex_unlock(&opening);
	for (unsigned i = 0; i < LOCKS_MAX; i++) {
		int fd = atomic_exchange(&lock_fds[i], 0);
		if (fd)
			close(fd - 1);
	}
	pthread_mutex_init(&registry, NULL);
	files = NULL;
}

static void register_handlers(void)
{
	pthread_atfork(before_fork, in_parent, in_child);
}

void lmfile_watch_forks(void)
{
	pthread_once(&fork_once, register_handlers);
}

static _Atomic int *remember_lock(int fd)
{
	for (unsigned i = 0; i < LOCKS_MAX; i++) {
		int none = 0;
		if (atomic_compare_exchange_strong(&lock_fds[i], &none, fd + 1))
			return &lock_fds[i];
	}
	complain(-EMFILE, "more than %d recordings are being written", LOCKS_MAX);
	return NULL;
}

static void close_lock(struct lock *lock)
{
	if (lock->fd < 0)
		return;
	atomic_store(lock->entry, 0);
	close(lock->fd);
	lock->fd = -1;
}

/* --- assertions inside LMDB --- */

static _Thread_local jmp_buf *escape;

static void on_assertion(MDB_env *env, const char *text)
{
	(void)env;
	complain(-EBADMSG, "the file was damaged while it was open (%s)", text);
	if (escape)
		longjmp(*escape, 1);
}

/* --- environments --- */

/*
 * LMDB makes its lock file as a hole and writes to it by a map: on a full disk that is a SIGBUS. So its blocks are had before.
 * Only while this process has no environment open on the file: closing a descriptor drops the locks of all of them.
 */
static int allocate_lock_file(const char *path)
{
	char *lock_path;
	if (asprintf(&lock_path, "%s-lock", path) < 0)
		return complain(-ENOMEM, "no memory to open %s", path);
	int fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, FILE_MODE);
	int error = fd < 0 ? errno : posix_fallocate(fd, 0, LOCK_FILE_BYTES);
	if (fd >= 0)
		close(fd);
	if (error)
		complain(-error, "%s cannot be made: %s", lock_path, strerror(error));
	free(lock_path);
	return -error;
}

static int open_env(const char *path, unsigned flags, uint64_t map_bytes, MDB_env **ret_env)
{
	MDB_env *env;
	int error = flags & MDB_NOLOCK ? 0 : allocate_lock_file(path);
	if (error)
		return error;
	int result = mdb_env_create(&env);
	if (result)
		return complain_lmdb(result, path);
	mdb_env_set_maxreaders(env, READERS_MAX);
	mdb_env_set_assert(env, on_assertion);
	if (map_bytes)
		mdb_env_set_mapsize(env, map_bytes);
	result = mdb_env_open(env, path, flags | MDB_NOSUBDIR | MDB_NOTLS, FILE_MODE);
	if (result) {
		mdb_env_close(env);
		return complain_lmdb(result, path);
	}
	*ret_env = env;
	return 0;
}

/* To read: without LMDB's lock file where that cannot be written. */
static int open_reader_env(const char *path, MDB_env **ret_env)
{
	int error = open_env(path, MDB_RDONLY, 0, ret_env);
	if (error == -EACCES || error == -EROFS || error == -EPERM || error == -ENOSPC || error == -EDQUOT)
		error = open_env(path, MDB_RDONLY | MDB_NOLOCK, 0, ret_env);
	return error;
}

static int open_dbi(MDB_env *env, MDB_dbi *ret_dbi)
{
	MDB_txn *txn;
	int result = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
	if (result)
		return complain_lmdb(result, "the file");
	result = mdb_dbi_open(txn, NULL, 0, ret_dbi);
	mdb_txn_abort(txn);
	return complain_lmdb(result, "the file");
}

/* Holds the newest snapshot and checks it. */
static int check_env(MDB_env *env, int fd)
{
	MDB_txn *txn;
	int result = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
	if (result)
		return complain_lmdb(result, "the file");
	int error = mdb_txn_id(txn) ? check_tree(fd, mdb_txn_id(txn)) : 0;
	mdb_txn_abort(txn);
	return error;
}

/* --- the list --- */

static int open_path(const char *path, int flags, struct stat *ret_status, int *ret_fd)
{
	int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, FILE_MODE);
	if (fd < 0)
		return complain(errno ? -errno : -EIO, "%s cannot be opened: %s", path, strerror(errno));
	if (fstat(fd, ret_status) < 0 || !S_ISREG(ret_status->st_mode)) {
		close(fd);
		return complain(-EINVAL, "%s is no ordinary file", path);
	}
	*ret_fd = fd;
	return 0;
}

static struct lmfile *find(const struct stat *status)
{
	struct lmfile *file = files;
	while (file && (file->device != status->st_dev || file->inode != status->st_ino))
		file = file->next;
	return file;
}

static int refuse_broken(const struct lmfile *file)
{
	return file && atomic_load(&file->broken)
		       ? complain(-EBADMSG, "%s was damaged while it was open; move it away", file->path)
		       : 0;
}

static struct lmfile *make(const char *path, const struct stat *status)
{
	struct lmfile *file = calloc(1, sizeof *file);
	if (!file)
		return NULL;
	file->path = realpath(path, NULL);
	if (!file->path) {
		free(file);
		return NULL;
	}
	file->device = status->st_dev;
	file->inode = status->st_ino;
	file->pid = getpid();
	file->lock_file.fd = -1;
	pthread_rwlock_init(&file->lock, NULL);
	return file;
}

static void destroy(struct lmfile *file)
{
	close_lock(&file->lock_file);
	if (file->env && !atomic_load(&file->broken))
		mdb_env_close(file->env);
	pthread_rwlock_destroy(&file->lock);
	free(file->path);
	free(file);
}

static void enlist(struct lmfile *file)
{
	file->next = files;
	files = file;
}

static void release(struct lmfile *file)
{
	if (--file->n_users || atomic_load(&file->broken))
		return;
	struct lmfile **link = &files;
	while (*link && *link != file)
		link = &(*link)->next;
	if (*link)
		*link = file->next;
	destroy(file);
}

/* --- opening to read --- */

static int open_first(const char *path, int fd, const struct stat *status, struct lmfile **ret_file)
{
	int header = check_header(fd);
	if (header <= 0)
		return header ? header : complain(-EPROTO, "the file is empty");
	struct lmfile *file = make(path, status);
	if (!file)
		return complain(-ENOMEM, "no memory to open %s", path);
	int error = open_reader_env(file->path, &file->env);
	if (!error)
		error = check_env(file->env, fd);
	if (!error)
		error = open_dbi(file->env, &file->dbi);
	if (error) {
		destroy(file);
		return error;
	}
	enlist(file);
	*ret_file = file;
	return 0;
}

int lmfile_open(const char *path, struct lmfile **ret_file)
{
	struct stat status = { 0 };
	int fd = -1, error = open_path(path, O_RDONLY, &status, &fd);
	if (error)
		return error;
	lmfile_watch_forks();
	pthread_mutex_lock(&registry);
	struct lmfile *file = find(&status);
	error = refuse_broken(file);
	if (!file)
		error = open_first(path, fd, &status, &file);
	if (!error) {
		file->n_users++;
		*ret_file = file;
	}
	pthread_mutex_unlock(&registry);
	close(fd);
	return error;
}

/* --- opening to write --- */

/* Who holds a flock on the file: a process's id, or 0. */
static int lock_holder(const struct stat *status)
{
	char line[256], wanted[64];
	int pid, holder = 0;
	FILE *locks = fopen("/proc/locks", "re");
	snprintf(wanted, sizeof wanted, " %02x:%02x:%llu ", major(status->st_dev), minor(status->st_dev),
		 (unsigned long long)status->st_ino);
	while (locks && !holder && fgets(line, sizeof line, locks))
		if (strstr(line, "FLOCK") && strstr(line, wanted) && sscanf(line, "%*s %*s %*s %*s %d", &pid) == 1)
			holder = pid;
	if (locks)
		fclose(locks);
	return holder;
}

static int lock_path(const char *path, int fd, const struct stat *status)
{
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno != EWOULDBLOCK)
		return complain(-errno, "%s cannot be locked: %s", path, strerror(errno));
	return complain(-EBUSY, "%s is being written by another recorder (process %d); give each its own path", path,
			lock_holder(status));
}

/* A writable environment in place of what `file` has; `file->lock` is held for writing. */
static int open_writable(struct lmfile *file, uint64_t max_bytes, bool sync)
{
	struct stat status;
	bool known = file->env != NULL;
	int header = check_header(file->lock_file.fd);
	if (header < 0)
		return header;
	if (known)
		mdb_env_close(file->env);
	file->env = NULL;
	int error = open_env(file->path, sync ? MDB_NOMETASYNC : MDB_NOSYNC, max_bytes, &file->env);
	if (error) {
		if (!header && ftruncate(file->lock_file.fd, 0) < 0)
			return complain(error, "%s cannot be begun: %s", file->path, strerror(-error));
		return error;
	}
	file->writable = true;
	if (!known && header)
		error = check_env(file->env, file->lock_file.fd);
	if (!error)
		error = open_dbi(file->env, &file->dbi);
	if (!error && fstat(file->lock_file.fd, &status) == 0 && (uint64_t)status.st_size < max_bytes &&
	    ftruncate(file->lock_file.fd, (off_t)max_bytes) < 0)
		error = complain(-errno, "%s cannot have %llu bytes: %s", file->path, (unsigned long long)max_bytes,
				 strerror(errno));
	file->min_bytes = max_bytes;
	return error;
}

static int become_writer(struct lmfile *file, uint64_t max_bytes, bool sync)
{
	pthread_rwlock_wrlock(&file->lock);
	int error = open_writable(file, max_bytes, sync);
	pthread_rwlock_unlock(&file->lock);
	return error;
}

/* The lock is had; it is the file's when this succeeds. */
static int open_locked(const char *path, const struct lock *lock, const struct stat *status, uint64_t max_bytes,
		       bool sync, struct lmfile **ret_file)
{
	struct lmfile *file = find(status);
	int error = refuse_broken(file);
	if (error)
		return error;
	if (!file) {
		file = make(path, status);
		if (!file)
			return complain(-ENOMEM, "no memory to open %s", path);
		enlist(file);
	}
	file->n_users++;
	file->lock_file = *lock;
	error = become_writer(file, max_bytes, sync);
	if (!error) {
		*ret_file = file;
		return 0;
	}
	file->lock_file.fd = -1;
	release(file);
	return error;
}

static int open_lock(const char *path, struct stat *ret_status, struct lock *ret_lock)
{
	struct lock lock = { .fd = -1 };
	pthread_mutex_lock(&opening);
	int error = open_path(path, O_RDWR | O_CREAT, ret_status, &lock.fd);
	lock.entry = error ? NULL : remember_lock(lock.fd);
	pthread_mutex_unlock(&opening);
	if (error)
		return error;
	if (!lock.entry) {
		close(lock.fd);
		return -EMFILE;
	}
	error = lock_path(path, lock.fd, ret_status);
	if (error)
		close_lock(&lock);
	else
		*ret_lock = lock;
	return error;
}

int lmfile_open_writer(const char *path, uint64_t max_bytes, bool sync, struct lmfile **ret_file)
{
	struct stat status = { 0 };
	struct lock lock = { .fd = -1 };
	int error = open_lock(path, &status, &lock);
	if (error)
		return error;
	pthread_mutex_lock(&registry);
	error = open_locked(path, &lock, &status, max_bytes, sync, ret_file);
	pthread_mutex_unlock(&registry);
	if (error)
		close_lock(&lock);
	return error;
}

void lmfile_close(struct lmfile *file)
{
	if (!file || file->pid != getpid())
		return;
	pthread_mutex_lock(&registry);
	release(file);
	pthread_mutex_unlock(&registry);
}

void lmfile_close_writer(struct lmfile *file)
{
	if (!file || file->pid != getpid())
		return;
	pthread_mutex_lock(&registry);
	close_lock(&file->lock_file);
	release(file);
	pthread_mutex_unlock(&registry);
}

/* --- transactions --- */

/* LMDB calls a short write an I/O error. */
static bool is_disk_full(const struct lmfile *file)
{
	enum { LITTLE_BYTES = 1 << 20 };
	struct statvfs status;
	return fstatvfs(file->lock_file.fd, &status) == 0 && status.f_bavail * status.f_frsize < LITTLE_BYTES;
}

static int transact(struct lmfile *file, bool write, lmfile_work *work, void *arg)
{
	MDB_txn *txn;
	int result = mdb_txn_begin(file->env, NULL, write ? 0 : MDB_RDONLY, &txn);
	if (result == MDB_MAP_RESIZED)
		return result;
	if (result)
		return complain_lmdb(result, file->path);
	int error = work(txn, file->dbi, arg);
	if (error || !write) {
		mdb_txn_abort(txn);
		return error;
	}
	result = mdb_txn_commit(txn);
	return complain_lmdb(result == EIO && is_disk_full(file) ? ENOSPC : result, file->path);
}

/* Between setjmp and a longjmp no variable of this function changes. */
static int guarded(struct lmfile *file, bool write, lmfile_work *work, void *arg)
{
	jmp_buf here;
	if (setjmp(here)) {
		escape = NULL;
		atomic_store(&file->broken, true);
		return -EBADMSG;
	}
	escape = &here;
	int result = transact(file, write, work, arg);
	escape = NULL;
	return result;
}

/* What can be seen of a file before it is written to. */
static int check_place(const struct lmfile *file)
{
	struct stat status;
	mdb_filehandle_t fd;
	if (stat(file->path, &status) < 0 || status.st_dev != file->device || status.st_ino != file->inode)
		return complain(-ESTALE, "%s was moved away", file->path);
	if ((uint64_t)status.st_size < file->min_bytes)
		return complain(-EBADMSG, "%s was cut to %lld bytes", file->path, (long long)status.st_size);
	if (mdb_env_get_fd(file->env, &fd) || fstat(fd, &status) < 0 || status.st_ino != file->inode)
		return complain(-ESTALE, "the descriptor of %s was closed by somebody else", file->path);
	return 0;
}

static int run(struct lmfile *file, bool write, lmfile_work *work, void *arg)
{
	int error = 0;
	pthread_rwlock_rdlock(&file->lock);
	if (atomic_load(&file->broken) || !file->env)
		error = complain(-EBADMSG, "%s cannot be used any more: it was damaged while it was open", file->path);
	else if (write)
		error = check_place(file);
	if (!error)
		error = guarded(file, write, work, arg);
	pthread_rwlock_unlock(&file->lock);
	return error;
}

/* Another process has made the file larger: the map grows, while no transaction of ours is under way. */
static void grow_map(struct lmfile *file)
{
	pthread_rwlock_wrlock(&file->lock);
	if (file->env)
		mdb_env_set_mapsize(file->env, 0);
	pthread_rwlock_unlock(&file->lock);
}

int lmfile_read(struct lmfile *file, lmfile_work *work, void *arg)
{
	if (file->pid != getpid())
		return complain(-ECHILD, "this recording was opened by the process that forked this one; open it here");
	int result = run(file, false, work, arg);
	if (result != MDB_MAP_RESIZED)
		return result;
	grow_map(file);
	result = run(file, false, work, arg);
	return result == MDB_MAP_RESIZED ? complain_lmdb(result, file->path) : result;
}

int lmfile_write(struct lmfile *file, lmfile_work *work, void *arg)
{
	int result = run(file, true, work, arg);
	return result == MDB_MAP_RESIZED ? complain_lmdb(result, file->path) : result;
}

bool lmfile_is_live(struct lmfile *file)
{
	int fd = open(file->path, O_RDONLY | O_CLOEXEC);
	bool live = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
	if (fd >= 0)
		close(fd);
	return live;
}
