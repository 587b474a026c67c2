/*
 * check.h -- is a file an LMDB database whose pages can be followed without harm?
 *
 * LMDB trusts what it maps: a damaged page makes it abort, or read outside of its map. So nothing of a file is mapped before
 * its meta pages were checked, and nothing is looked up before all pages of the snapshot were.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>

enum { CHECK_PAGE_BYTES = 4096 };

/*
 * Checks the meta pages. 1: they are good; 0: the file is empty; -EBADMSG damaged; -EPROTO no LMDB database. Blocks.
 */
int check_header(int fd);

/*
 * Checks every page that the snapshot `txn_id` reaches and its list of free pages. The snapshot must not be written to
 * meanwhile (hold a reading transaction). 0, -EBADMSG, -ENOMEM. Blocks: it reads the whole structure.
 */
int check_tree(int fd, uint64_t txn_id);

#endif
