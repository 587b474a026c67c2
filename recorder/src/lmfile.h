/*
 * lmfile.h -- a recording's file: opened once in a process however many use it, checked before it is trusted.
 */
#ifndef LMFILE_H
#define LMFILE_H

#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>

struct lmfile;

/* Before the thread starts that opens to write: handlers registered while a fork is under way do not run in its child. */
void lmfile_watch_forks(void);

/*
 * Opens to read. -ENOENT, -EACCES, -EBADMSG, -EPROTO, with the sentence. Blocks: checks the whole structure, unless this process
 * has the file open already.
 */
int lmfile_open(const char *path, struct lmfile **ret_file);

/*
 * Opens to write, as the only one: makes the file where there is none. -EBUSY another process writes it, and as above. `sync`
 * false: commits are left to the system to write back.
 */
int lmfile_open_writer(const char *path, uint64_t max_bytes, bool sync, struct lmfile **ret_file);

/* One for each open. NULL is allowed; nothing in a forked child. */
void lmfile_close(struct lmfile *file);
void lmfile_close_writer(struct lmfile *file);

typedef int lmfile_work(MDB_txn *txn, MDB_dbi dbi, void *arg);

/*
 * Runs `work` in a transaction and returns what it returns; a write commits when that is 0. -EBADMSG when LMDB meets damage:
 * the file is not touched again. -ESTALE (writers) when the path no longer leads to the file: open it anew. -ECHILD after a fork.
 */
int lmfile_read(struct lmfile *file, lmfile_work *work, void *arg);
int lmfile_write(struct lmfile *file, lmfile_work *work, void *arg);

/* Whether some process records to the file now. */
bool lmfile_is_live(struct lmfile *file);

#endif
