/*
 * filter.c -- DESIGN: without it every page fault of the process is a signal. The program looks the page up in a hash map
 * from 2 MiB blocks to 512 bits and returns 0, which suppresses sample and signal (Linux 6.10 and later), unless the bit
 * is set; then it counts, so that `who` can tell a fault whose signal is still to come from a system call. Raw bpf(2).
 * Runs under the engine's lock; the program in the kernel, on the writer's thread.
 *
 * Loss: a block that the map cannot hold loses authors, not changes.
 */
#define _GNU_SOURCE
#include "filter.h"

#include "../base/descriptor.h"

#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BLOCK_SHIFT = 21, BLOCKS_MAX = 1 << 20 };

static const struct page_set *pages;
static struct descriptor blocks = DESCRIPTOR_NONE, counter = DESCRIPTOR_NONE, program = DESCRIPTOR_NONE;
static _Atomic uint64_t *passed; /* the counter's memory, shared with the kernel */

static int bpf(int command, union bpf_attr *attr)
{
	int result = (int)syscall(SYS_bpf, command, attr, sizeof *attr);
	return result < 0 ? -errno : result;
}

static int map_create(uint32_t type, uint32_t key_size, uint32_t value_size, uint32_t n, uint32_t flags)
{
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.map_type = type;
	attr.key_size = key_size;
	attr.value_size = value_size;
	attr.max_entries = n;
	attr.map_flags = flags;
	return bpf(BPF_MAP_CREATE, &attr);
}

static int program_load(void)
{
	const struct bpf_insn code[] = {
		/* r6 = the fault's address; its block's number on the stack is the key */
		{ .code = BPF_LDX | BPF_MEM | BPF_DW,
		  .dst_reg = 6,
		  .src_reg = 1,
		  .off = offsetof(struct bpf_perf_event_data, addr) },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 2, .src_reg = 6 },
		{ .code = BPF_ALU64 | BPF_RSH | BPF_K, .dst_reg = 2, .imm = BLOCK_SHIFT },
		{ .code = BPF_STX | BPF_MEM | BPF_DW, .dst_reg = 10, .src_reg = 2, .off = -8 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 2, .src_reg = 10 },
		{ .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = 2, .imm = -8 },
		{ .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = blocks.fd },
		{ 0 },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_map_lookup_elem },
		/* none: r0 is 0, drop */
		{ .code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = 0, .imm = 0, .off = 13 },
		/* r2 = the word that holds the page's bit, shifted down to it */
		{ .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 1, .src_reg = 6 },
		{ .code = BPF_ALU64 | BPF_RSH | BPF_K, .dst_reg = 1, .imm = PAGE_SHIFT + 6 },
		{ .code = BPF_ALU64 | BPF_AND | BPF_K, .dst_reg = 1, .imm = 7 },
		{ .code = BPF_ALU64 | BPF_LSH | BPF_K, .dst_reg = 1, .imm = 3 },
		{ .code = BPF_ALU64 | BPF_ADD | BPF_X, .dst_reg = 0, .src_reg = 1 },
		{ .code = BPF_LDX | BPF_MEM | BPF_DW, .dst_reg = 0, .src_reg = 0 },
		{ .code = BPF_ALU64 | BPF_RSH | BPF_K, .dst_reg = 6, .imm = PAGE_SHIFT },
		{ .code = BPF_ALU64 | BPF_AND | BPF_K, .dst_reg = 6, .imm = 63 },
		{ .code = BPF_ALU64 | BPF_RSH | BPF_X, .dst_reg = 0, .src_reg = 6 },
		{ .code = BPF_ALU64 | BPF_AND | BPF_K, .dst_reg = 0, .imm = 1 },
		/* count, and the answer is the bit */
		{ .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_VALUE, .imm = counter.fd },
		{ 0 },
		{ .code = BPF_STX | BPF_ATOMIC | BPF_DW, .dst_reg = 1, .src_reg = 0, .imm = BPF_ADD },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.prog_type = BPF_PROG_TYPE_PERF_EVENT;
	attr.insns = (uintptr_t)code;
	attr.insn_cnt = sizeof code / sizeof *code;
	attr.license = (uintptr_t) "MIT";
	return bpf(BPF_PROG_LOAD, &attr);
}

void filter_close(void)
{
	if (passed)
		munmap((void *)passed, PAGE_BYTES);
	descriptor_close(&program);
	descriptor_close(&counter);
	descriptor_close(&blocks);
	passed = NULL;
}

/* The maps, then the program that names them. */
static int descriptors_open(void)
{
	int fd = map_create(BPF_MAP_TYPE_HASH, sizeof(uint64_t), 64, BLOCKS_MAX, BPF_F_NO_PREALLOC);
	int error = descriptor_adopt(fd, DESCRIPTOR_BPF_MAP, &blocks);
	if (error)
		return error;
	fd = map_create(BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(uint64_t), 1, BPF_F_MMAPABLE);
	error = descriptor_adopt(fd, DESCRIPTOR_BPF_MAP, &counter);
	return error ? error : descriptor_adopt(program_load(), DESCRIPTOR_BPF_PROGRAM, &program);
}

static void block_update(uint64_t block)
{
	uint64_t words[8], any = 0;
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	page_set_words(pages, block << BLOCK_SHIFT, words);
	for (int i = 0; i < 8; i++)
		any |= words[i];
	attr.map_fd = (uint32_t)blocks.fd;
	attr.key = (uintptr_t)&block;
	attr.value = any ? (uintptr_t)words : 0;
	bpf(any ? BPF_MAP_UPDATE_ELEM : BPF_MAP_DELETE_ELEM, &attr);
}

void filter_update(struct span span)
{
	if (!descriptor_is_ours(&blocks))
		return;
	for (uint64_t block = span.start >> BLOCK_SHIFT; block << BLOCK_SHIFT < span.end; block++)
		block_update(block);
}

int filter_open(const struct page_set *set)
{
	struct span run;
	pages = set;
	int error = descriptors_open();
	if (!error) {
		void *memory = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, counter.fd, 0);
		passed = memory == MAP_FAILED ? NULL : memory;
		error = passed ? 0 : -errno;
	}
	if (error)
		filter_close();
	for (uint64_t at = 0; !error && page_set_next(pages, at, ADDRESS_END, &run); at = run.end)
		filter_update(run);
	return error;
}

int filter_attach(int perf_fd)
{
	return ioctl(perf_fd, PERF_EVENT_IOC_SET_BPF, program.fd) < 0 ? -errno : 0;
}

uint64_t filter_passed(void)
{
	return passed ? atomic_load_explicit(passed, memory_order_relaxed) : 0;
}
