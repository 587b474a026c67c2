/*
 * descriptor.h -- file descriptors of ours among the host's. Their numbers are high, where neither select(2) nor a
 * program that counts on the lowest number meets them; they leave an eighth of the limit free; and they are known by
 * more than their number, since a host may close all that it does not know, and open its own there.
 *
 *   who may run together    descriptor_is_ours: any thread, in handlers too
 *                           everything else: one at a time for each descriptor
 */
#ifndef DESCRIPTOR_H
#define DESCRIPTOR_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What tells one from another: most files are told by their inode, the kernel's anonymous ones share theirs and have
 * numbers.
 */
enum descriptor_kind { DESCRIPTOR_FILE, DESCRIPTOR_PERF, DESCRIPTOR_BPF_MAP, DESCRIPTOR_BPF_PROGRAM };

struct descriptor {
	int fd; /* -1: none */
	enum descriptor_kind kind;
	uint64_t device, inode, number;
};
#define DESCRIPTOR_NONE ((struct descriptor){ .fd = -1 })

/*
 * Takes over `fd`, which another call has just given: it gets its high number and is closed on exec. A negative `fd` is
 * that call's -errno and is handed back. 0, or -errno with `fd` closed; -EMFILE when the limit leaves no room.
 */
int descriptor_adopt(int fd, enum descriptor_kind kind, struct descriptor *ret_descriptor);
/* Is it still what it was when we took it? Signal-safe. */
bool descriptor_is_ours(const struct descriptor *descriptor);
/* Closes it if it is still ours; it is DESCRIPTOR_NONE then. */
void descriptor_close(struct descriptor *descriptor);

#endif
