/*
 * check.c -- DESIGN: walks a database file with pread(2) alone, so that damage is an answer and not a signal. Knows the page
 * layout of LMDB's data format 1 (0.9): two meta pages, the B-tree of free pages, the main B-tree, overflow pages. Runs on
 * whoever opens a file. A page that is reached twice, lies outside, or whose parts overlap its ends is damage.
 */
#include "check.h"

#include "complain.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	MAGIC = 0xBEEFC0DE,
	DATA_VERSION = 1,
	PAGE_BRANCH = 1,
	PAGE_LEAF = 2,
	PAGE_OVERFLOW = 4,
	PAGE_META = 8,
	PAGE_HEADER_BYTES = 16,
	NODE_HEADER_BYTES = 8,
	NODE_BIGDATA = 1,
	KEY_MAX = 511,
	DEPTH_MAX = 32,
	FREE_FLAGS = 8,    /* integer keys */
	ENV_FLAGS = 0x4000 /* what LMDB leaves there of the environment's: no directory */
};

#define NO_PAGE UINT64_MAX
#define MAP_MAX (UINT64_C(1) << 46)

struct tree {
	uint32_t pad;
	uint16_t flags, depth;
	uint64_t n_branches, n_leaves, n_overflows, n_entries, root;
};

struct meta {
	uint32_t magic, version;
	uint64_t address, map_bytes;
	struct tree free_pages, main;
	uint64_t last_page, txn_id;
};

static_assert(sizeof(struct tree) == 48 && sizeof(struct meta) == 136, "LMDB's own layout");

struct page_header {
	uint64_t number;
	uint16_t pad, flags;
	union {
		struct {
			uint16_t lower, upper;
		};
		uint32_t n_pages;
	};
};

struct node {
	uint16_t low, high, flags, key_bytes;
};

static_assert(sizeof(struct page_header) == PAGE_HEADER_BYTES && sizeof(struct node) == NODE_HEADER_BYTES,
	      "LMDB's own layout");

union page {
	struct page_header header;
	uint8_t bytes[CHECK_PAGE_BYTES];
};

struct check {
	int fd;
	uint64_t n_pages;
	uint8_t *seen; /* one bit a page */
};

static int damaged(uint64_t page, const char *what)
{
	return complain(-EBADMSG, "the file is damaged (page %llu: %s)", (unsigned long long)page, what);
}

static int read_at(int fd, void *buffer, size_t size, uint64_t offset)
{
	uint8_t *to = buffer;
	while (size) {
		ssize_t n = pread(fd, to, size, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return complain(-errno, "the file cannot be read: %s", strerror(errno));
		if (n == 0)
			return damaged(offset / CHECK_PAGE_BYTES, "the file ends before it");
		to += n;
		offset += (uint64_t)n;
		size -= (size_t)n;
	}
	return 0;
}

/* --- the meta pages --- */

static bool root_is_sane(const struct tree *tree, uint64_t last_page)
{
	return tree->depth <= DEPTH_MAX && (tree->root == NO_PAGE || (tree->root >= 2 && tree->root <= last_page));
}

static int read_meta(int fd, unsigned index, struct meta *ret_meta)
{
	uint8_t bytes[PAGE_HEADER_BYTES + sizeof(struct meta)];
	struct page_header header;
	int error = read_at(fd, bytes, sizeof bytes, index * (uint64_t)CHECK_PAGE_BYTES);
	if (error)
		return error;
	memcpy(&header, bytes, sizeof header);
	memcpy(ret_meta, bytes + sizeof header, sizeof *ret_meta);
	if (ret_meta->magic != (uint32_t)MAGIC)
		return complain(-EPROTO, "the file is no recording");
	if (ret_meta->version != DATA_VERSION || ret_meta->free_pages.pad != CHECK_PAGE_BYTES)
		return complain(-EPROTO, "the file is a database of another format");
	if (header.number != index || header.flags != PAGE_META ||
	    (ret_meta->free_pages.flags & ~ENV_FLAGS) != FREE_FLAGS || ret_meta->main.flags || ret_meta->address ||
	    ret_meta->map_bytes > MAP_MAX)
		return damaged(index, "its header");
	if (ret_meta->last_page < 1 || ret_meta->last_page > MAP_MAX / CHECK_PAGE_BYTES ||
	    !root_is_sane(&ret_meta->free_pages, ret_meta->last_page) ||
	    !root_is_sane(&ret_meta->main, ret_meta->last_page))
		return damaged(index, "its roots");
	return 0;
}

int check_header(int fd)
{
	struct meta metas[2];
	struct stat status;
	if (fstat(fd, &status) < 0)
		return complain(-errno, "the file cannot be read: %s", strerror(errno));
	if (!status.st_size)
		return 0;
	if (status.st_size < 2 * CHECK_PAGE_BYTES)
		return complain(-EPROTO, "the file is no recording, or was cut to %lld bytes",
				(long long)status.st_size);
	int first = read_meta(fd, 0, &metas[0]), second = first == -EIO ? first : read_meta(fd, 1, &metas[1]);
	if (first == -EPROTO && second == -EPROTO)
		return -EPROTO;
	if (first || second)
		return damaged(first ? 0 : 1, "its header");
	return 1;
}

/* --- pages --- */

/* Marks `n` pages as reached. */
static int claim(struct check *check, uint64_t page, uint64_t n)
{
	if (page < 2 || page >= check->n_pages || n > check->n_pages - page)
		return damaged(page, "outside of the file");
	for (; n; page++, n--) {
		uint8_t bit = (uint8_t)(1 << page % 8);
		if (check->seen[page / 8] & bit)
			return damaged(page, "used twice");
		check->seen[page / 8] |= bit;
	}
	return 0;
}

static int check_overflow(struct check *check, uint64_t page, uint64_t size_bytes)
{
	uint64_t n = (PAGE_HEADER_BYTES - 1 + size_bytes) / CHECK_PAGE_BYTES + 1;
	struct page_header header;
	int error = claim(check, page, n);
	if (error)
		return error;
	error = read_at(check->fd, &header, sizeof header, page * CHECK_PAGE_BYTES);
	if (error)
		return error;
	if (header.number != page || header.flags != PAGE_OVERFLOW || header.n_pages != n)
		return damaged(page, "its header");
	return 0;
}

/* The pages that a record of the free list names: a count, then their numbers. */
static int check_free_list(struct check *check, uint64_t page, const uint8_t *bytes, uint64_t size_bytes)
{
	uint64_t n, free_page, previous = NO_PAGE;
	if (size_bytes < sizeof n)
		return damaged(page, "its list of free pages");
	memcpy(&n, bytes, sizeof n);
	if (n > size_bytes / sizeof n - 1)
		return damaged(page, "its list of free pages");
	for (uint64_t i = 1; i <= n; i++) {
		memcpy(&free_page, bytes + i * sizeof n, sizeof free_page);
		int error = free_page < previous ? claim(check, free_page, 1)
						 : damaged(page, "the order of free pages");
		if (error)
			return error;
		previous = free_page;
	}
	return 0;
}

static int check_free_overflow(struct check *check, uint64_t page, uint64_t size_bytes)
{
	uint8_t *bytes = malloc(size_bytes);
	if (!bytes)
		return complain(-ENOMEM, "no memory to check the file");
	int error = read_at(check->fd, bytes, size_bytes, page * CHECK_PAGE_BYTES + PAGE_HEADER_BYTES);
	if (!error)
		error = check_free_list(check, page, bytes, size_bytes);
	free(bytes);
	return error;
}

/* A leaf's value. `data` are the bytes behind the key, `room` how many there are up to the page's end. */
static int check_value(struct check *check, uint64_t page, const struct node *node, const uint8_t *data, size_t room,
		       bool is_free_list)
{
	uint64_t size_bytes = node->low | (uint64_t)node->high << 16, overflow;
	if (node->flags & ~NODE_BIGDATA)
		return damaged(page, "an entry's kind");
	if (!(node->flags & NODE_BIGDATA)) {
		if (size_bytes > room)
			return damaged(page, "an entry's size");
		return is_free_list ? check_free_list(check, page, data, size_bytes) : 0;
	}
	if (room < sizeof overflow)
		return damaged(page, "an entry's size");
	memcpy(&overflow, data, sizeof overflow);
	int error = check_overflow(check, overflow, size_bytes);
	return error || !is_free_list ? error : check_free_overflow(check, overflow, size_bytes);
}

static int compare_keys(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes, bool is_free_list)
{
	if (is_free_list) {
		uint64_t first, second;
		memcpy(&first, a, sizeof first);
		memcpy(&second, b, sizeof second);
		return first < second ? -1 : first > second;
	}
	int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
	return order ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static int check_page(struct check *check, uint64_t number, unsigned depth, bool is_free_list);

/* One entry; `*key` and `*key_bytes` are the previous entry's on entry, this one's on return. */
static int check_node(struct check *check, const union page *page, unsigned index, unsigned depth, bool is_free_list,
		      const uint8_t **key, size_t *key_bytes)
{
	uint64_t number = page->header.number;
	bool is_branch = page->header.flags & PAGE_BRANCH;
	uint16_t offset;
	struct node node;
	memcpy(&offset, page->bytes + PAGE_HEADER_BYTES + index * sizeof offset, sizeof offset);
	if (offset < page->header.upper || offset > CHECK_PAGE_BYTES - NODE_HEADER_BYTES)
		return damaged(number, "an entry's place");
	memcpy(&node, page->bytes + offset, sizeof node);
	const uint8_t *bytes = page->bytes + offset + NODE_HEADER_BYTES;
	size_t room = CHECK_PAGE_BYTES - NODE_HEADER_BYTES - offset;
	bool has_key = !is_branch || index;
	if (node.key_bytes > room || node.key_bytes > KEY_MAX || (has_key && !node.key_bytes) ||
	    (has_key && is_free_list && node.key_bytes != sizeof(uint64_t)))
		return damaged(number, "a key's size");
	if (*key && compare_keys(*key, *key_bytes, bytes, node.key_bytes, is_free_list) >= 0)
		return damaged(number, "the order of its keys");
	*key = has_key ? bytes : NULL;
	*key_bytes = node.key_bytes;
	if (is_branch)
		return check_page(check, node.low | (uint64_t)node.high << 16 | (uint64_t)node.flags << 32, depth - 1,
				  is_free_list);
	return check_value(check, number, &node, bytes + node.key_bytes, room - node.key_bytes, is_free_list);
}

static int check_page(struct check *check, uint64_t number, unsigned depth, bool is_free_list)
{
	union page page;
	const uint8_t *key = NULL;
	size_t key_bytes = 0;
	int error = depth ? claim(check, number, 1) : damaged(number, "the tree's depth");
	if (!error)
		error = read_at(check->fd, &page, sizeof page, number * CHECK_PAGE_BYTES);
	if (error)
		return error;
	unsigned flags = depth == 1 ? PAGE_LEAF : PAGE_BRANCH;
	if (page.header.number != number || page.header.flags != flags)
		return damaged(number, "its header");
	if (page.header.lower < PAGE_HEADER_BYTES || page.header.lower % 2 || page.header.lower > page.header.upper ||
	    page.header.upper > CHECK_PAGE_BYTES)
		return damaged(number, "its bounds");
	unsigned n = (page.header.lower - PAGE_HEADER_BYTES) / 2u;
	if (n < (depth == 1 ? 1 : 2))
		return damaged(number, "it is empty");
	for (unsigned i = 0; i < n && !error; i++)
		error = check_node(check, &page, i, depth, is_free_list, &key, &key_bytes);
	return error;
}

static int check_root(struct check *check, const struct tree *tree, bool is_free_list)
{
	if (tree->root == NO_PAGE)
		return tree->depth || tree->n_entries ? damaged(0, "its roots") : 0;
	return check_page(check, tree->root, tree->depth, is_free_list);
}

int check_tree(int fd, uint64_t txn_id)
{
	struct check check = { .fd = fd };
	struct stat status;
	struct meta meta;
	int error = read_meta(fd, (unsigned)(txn_id & 1), &meta);
	if (error)
		return error == -EPROTO ? damaged(txn_id & 1, "its header") : error;
	if (meta.txn_id != txn_id || fstat(fd, &status) < 0)
		return damaged(txn_id & 1, "its transaction");
	check.n_pages = meta.last_page + 1;
	if ((uint64_t)status.st_size / CHECK_PAGE_BYTES < check.n_pages)
		return complain(-EBADMSG, "the file is damaged: it was cut to %lld bytes", (long long)status.st_size);
	check.seen = calloc(1, check.n_pages / 8 + 1);
	if (!check.seen)
		return complain(-ENOMEM, "no memory to check the file");
	error = check_root(&check, &meta.main, false);
	if (!error)
		error = check_root(&check, &meta.free_pages, true);
	free(check.seen);
	return error;
}
