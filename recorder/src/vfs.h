/*
 * vfs.h -- the files under SQLite, as a recording needs them: see vfs.c.
 */
#ifndef RECORDER_VFS_H
#define RECORDER_VFS_H

#include <sqlite3.h>

/* Registers it, once a process. Returns its name for sqlite3_open_v2, NULL without memory. */
const char *recorder_vfs_name(void);

/*
 * Every call of SQLite is made between these two: a fork waits until nobody is inside. Reading and writing files is not
 * waited for. The lock comes before the engine's.
 */
void recorder_vfs_enter(void);
void recorder_vfs_leave(void);

/* The errno of this thread's last system call that failed in here, told once; 0: none since. */
int recorder_vfs_errno(void);
/* Why the last file could not be opened, when it was not the system who refused; else NULL. */
const char *recorder_vfs_refusal(void);

/* For sqlite3_file_control: an int, whether this process is the one that may record to the file. */
enum { RECORDER_VFS_OWNS = 0x6d656d77 };

#endif
