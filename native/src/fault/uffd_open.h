/*
 * uffd_open.h -- the way to the two descriptors of the backend uffd, and the kernel's words that they are asked in.
 */
#ifndef UFFD_OPEN_H
#define UFFD_OPEN_H

#include "../base/base.h"
#include "../base/descriptor.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

/*
 * Opens a userfaultfd that has WP_ASYNC, and this process's page map. 0, or -ENOTSUP with a sentence in `note` that
 * says what to do; one of the two may be open then.
 */
int uffd_open_descriptors(struct descriptor *ret_uffd, struct descriptor *ret_pagemap, char *note, size_t note_size);

/* What is newer than Debian 12's headers; the values are the kernel's. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

struct scanned {
	uint64_t start, end, categories;
};

struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
static_assert(sizeof(struct scan) == 96, "struct pm_scan_arg of linux/fs.h");

#define SCAN_IOCTL _IOWR('f', 16, struct scan)
#define SCAN_WRITTEN (UINT64_C(1) << 1)
#define SCAN_WP_MATCHING (UINT64_C(1) << 0)
#define SCAN_CHECK_WPASYNC (UINT64_C(1) << 1)

#endif
