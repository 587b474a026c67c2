/*
 * filter.c -- DESIGN: without it every page fault of the process is a signal. The program looks the page up in a hash
 * map from 2 MiB blocks to 512 bits and returns 0, which suppresses sample and signal (Linux 6.10 and later), unless
 * the bit is set. Then it looks whether the signal may be sent: the thread must not block it, for it would stay pending
 * there and be found by who waits for any signal; and the process's handler must be one of ours, for the default action
 * ends the process. It counts what it decides, so that a fault whose signal is still to come can be told from a system
 * call. Raw bpf(2).
 *
 * Handler and mask stand in the kernel's structures of the thread. Where they lie differs from kernel to kernel: it is
 * found once, by reading what we know to stand there. Where they cannot be read the signals are not guarded.
 *
 * Runs under the engine's lock; the programs in the kernel, on the writer's thread.
 *
 * Loss: a block that the map cannot hold loses authors, not changes.
 */
#define _GNU_SOURCE
#include "filter.h"

#include "trap.h"

#include "../base/descriptor.h"

#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BLOCK_SHIFT = 21, BLOCKS_MAX = 1 << 20, CODE_MAX = 128 };

/* The counters' page: what the programs write, and what the one that looks for offsets is told and answers. */
enum shared_word { PASSED, BLOCKED, SEIZED, TASK_OFFSET, HANDLER, NEXT_WORD };

/* Behind these, how often the program has run: a cache line for each of some processors, by their numbers. */
enum { RUNS_FIRST = 64, RUNS_SLOTS = 32, RUNS_SHIFT = 6, SHARED_WORDS = RUNS_FIRST + RUNS_SLOTS * 8 };

/*
 * In the kernel's task: sighand, behind it the mask; in what sighand points to: 64 actions of 32 bytes, their handlers
 * first.
 */
enum { ACTIONS_OFFSET = 32, ACTION_BYTES = 32, TASK_BYTES_MAX = 16 << 10, NO_OFFSET = -1 };

static const struct page_set *pages;
static struct descriptor blocks = DESCRIPTOR_NONE, shared_map = DESCRIPTOR_NONE;
static struct descriptor page_program = DESCRIPTOR_NONE, guard_program = DESCRIPTOR_NONE;
static _Atomic uint64_t *shared;       /* SHARED_WORDS of them, shared with the kernel */
static int sighand_offset = NO_OFFSET; /* in the kernel's task; found once */

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

/* --- programs --- */

struct code {
	struct bpf_insn insns[CODE_MAX];
	unsigned n;
};

static void emit(struct code *code, unsigned operation, unsigned dst, unsigned src, int off, int imm)
{
	code->insns[code->n++] = (struct bpf_insn){ .code = (uint8_t)operation,
						    .dst_reg = dst & 0xfu,
						    .src_reg = src & 0xfu,
						    .off = (int16_t)off,
						    .imm = imm };
}

/* A constant of 64 bits; with `kind`, a map's descriptor or the address of one of its bytes. */
static void emit_constant(struct code *code, unsigned dst, unsigned kind, int low, int high)
{
	emit(code, BPF_LD | BPF_DW | BPF_IMM, dst, kind, 0, low);
	emit(code, 0, 0, 0, 0, high);
}

static void emit_add(struct code *code, unsigned dst, int n)
{
	emit(code, BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, n);
}

static void emit_move(struct code *code, unsigned dst, unsigned src)
{
	emit(code, BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0);
}

/* `instructions` more are left out when the jump is taken. */
static void emit_jump(struct code *code, unsigned condition, unsigned dst, int with, int instructions)
{
	emit(code, BPF_JMP | condition | BPF_K, dst, 0, instructions, with);
}

static void emit_return(struct code *code, int value)
{
	emit(code, BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, value);
	emit(code, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

enum { COUNT_INSTRUCTIONS = 6 };

/* Counts under `word` and returns: 1 lets the signal through. */
static void emit_count(struct code *code, enum shared_word word)
{
	emit_constant(code, 1, BPF_PSEUDO_MAP_VALUE, shared_map.fd, (int)word * 8);
	emit(code, BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1);
	emit(code, BPF_STX | BPF_ATOMIC | BPF_DW, 1, 0, 0, BPF_ADD);
	emit_return(code, word == PASSED);
}

/* Counts a run; keeps r1, uses r7. */
static void emit_run(struct code *code)
{
	emit_move(code, 7, 1);
	emit(code, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_get_smp_processor_id);
	emit(code, BPF_ALU64 | BPF_AND | BPF_K, 0, 0, 0, RUNS_SLOTS - 1);
	emit(code, BPF_ALU64 | BPF_LSH | BPF_K, 0, 0, 0, RUNS_SHIFT);
	emit_constant(code, 1, BPF_PSEUDO_MAP_VALUE, shared_map.fd, RUNS_FIRST * 8);
	emit(code, BPF_ALU64 | BPF_ADD | BPF_X, 1, 0, 0, 0);
	emit(code, BPF_ALU64 | BPF_MOV | BPF_K, 2, 0, 0, 1);
	emit(code, BPF_STX | BPF_ATOMIC | BPF_DW, 1, 2, 0, BPF_ADD);
	emit_move(code, 1, 7);
}

/* Copies bytes at [r3] in the kernel to [r10 + to]; r0 is 0 if they could be read. */
static void emit_read(struct code *code, int to, int size_bytes)
{
	emit_move(code, 1, 10);
	emit_add(code, 1, to);
	emit(code, BPF_ALU64 | BPF_MOV | BPF_K, 2, 0, 0, size_bytes);
	emit(code, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_probe_read_kernel);
}

/* Goes on when the fault's page is one of ours, else returns 0. */
static void emit_page_check(struct code *code)
{
	/* r6 = the fault's address; its block's number on the stack is the key */
	emit(code, BPF_LDX | BPF_MEM | BPF_DW, 6, 1, offsetof(struct bpf_perf_event_data, addr), 0);
	emit_move(code, 2, 6);
	emit(code, BPF_ALU64 | BPF_RSH | BPF_K, 2, 0, 0, BLOCK_SHIFT);
	emit(code, BPF_STX | BPF_MEM | BPF_DW, 10, 2, -8, 0);
	emit_move(code, 2, 10);
	emit_add(code, 2, -8);
	emit_constant(code, 1, BPF_PSEUDO_MAP_FD, blocks.fd, 0);
	emit(code, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem);
	emit_jump(code, BPF_JNE, 0, 0, 2);
	emit_return(code, 0);
	/* r0 = the word that holds the page's bit, shifted down to it */
	emit_move(code, 1, 6);
	emit(code, BPF_ALU64 | BPF_RSH | BPF_K, 1, 0, 0, PAGE_SHIFT + 6);
	emit(code, BPF_ALU64 | BPF_AND | BPF_K, 1, 0, 0, 7);
	emit(code, BPF_ALU64 | BPF_LSH | BPF_K, 1, 0, 0, 3);
	emit(code, BPF_ALU64 | BPF_ADD | BPF_X, 0, 1, 0, 0);
	emit(code, BPF_LDX | BPF_MEM | BPF_DW, 0, 0, 0, 0);
	emit(code, BPF_ALU64 | BPF_RSH | BPF_K, 6, 0, 0, PAGE_SHIFT);
	emit(code, BPF_ALU64 | BPF_AND | BPF_K, 6, 0, 0, 63);
	emit(code, BPF_ALU64 | BPF_RSH | BPF_X, 0, 6, 0, 0);
	emit(code, BPF_ALU64 | BPF_AND | BPF_K, 0, 0, 0, 1);
	emit_jump(code, BPF_JNE, 0, 0, 2);
	emit_return(code, 0);
}

/* Goes on when the thread does not block SIGTRAP and its handler is one of ours, else counts and returns 0. */
static void emit_guard(struct code *code)
{
	enum { SIGHAND = -24, MASK = -16, ACTION_HANDLER = -32 };
	emit(code, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_get_current_task);
	emit_move(code, 3, 0);
	emit_add(code, 3, sighand_offset);
	emit_read(code, SIGHAND, 16);
	emit(code, BPF_LDX | BPF_MEM | BPF_DW, 1, 10, MASK, 0);
	emit(code, BPF_ALU64 | BPF_AND | BPF_K, 1, 0, 0, 1 << (SIGTRAP - 1));
	emit_jump(code, BPF_JEQ, 1, 0, COUNT_INSTRUCTIONS);
	emit_count(code, BLOCKED);
	emit(code, BPF_LDX | BPF_MEM | BPF_DW, 3, 10, SIGHAND, 0);
	emit_add(code, 3, ACTIONS_OFFSET + (SIGTRAP - 1) * ACTION_BYTES);
	emit_read(code, ACTION_HANDLER, 8);
	emit(code, BPF_LDX | BPF_MEM | BPF_DW, 2, 10, ACTION_HANDLER, 0);
	for (int i = 0; i < CHAIN_PLACES; i++) {
		uint64_t handler = trap_handler(i);
		emit_constant(code, 1, 0, (int)(uint32_t)handler, (int)(uint32_t)(handler >> 32));
		emit(code, BPF_JMP | BPF_JEQ | BPF_X, 2, 1, (CHAIN_PLACES - 1 - i) * 3 + COUNT_INSTRUCTIONS, 0);
	}
	emit_count(code, SEIZED);
}

/* Tells the word at TASK_OFFSET of the task as the address of actions: the handler there, and the word after it. */
static void emit_look(struct code *code)
{
	enum { SIGHAND = -24, NEXT = -16, ACTION_HANDLER = -32 };
	emit(code, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_get_current_task);
	emit_constant(code, 6, BPF_PSEUDO_MAP_VALUE, shared_map.fd, 0);
	emit(code, BPF_LDX | BPF_MEM | BPF_DW, 3, 6, TASK_OFFSET * 8, 0);
	emit(code, BPF_ALU64 | BPF_ADD | BPF_X, 3, 0, 0, 0);
	emit_read(code, SIGHAND, 16);
	emit(code, BPF_LDX | BPF_MEM | BPF_DW, 1, 10, NEXT, 0);
	emit(code, BPF_STX | BPF_MEM | BPF_DW, 6, 1, NEXT_WORD * 8, 0);
	emit(code, BPF_LDX | BPF_MEM | BPF_DW, 3, 10, SIGHAND, 0);
	emit_add(code, 3, ACTIONS_OFFSET + (SIGTRAP - 1) * ACTION_BYTES);
	emit_read(code, ACTION_HANDLER, 8);
	emit(code, BPF_LDX | BPF_MEM | BPF_DW, 1, 10, ACTION_HANDLER, 0);
	emit(code, BPF_STX | BPF_MEM | BPF_DW, 6, 1, HANDLER * 8, 0);
	emit_return(code, 0);
}

/* probe_read_kernel is given to programs whose licence the GPL admits only. */
static int program_load(const struct code *code, struct descriptor *ret_program)
{
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.prog_type = BPF_PROG_TYPE_PERF_EVENT;
	attr.insns = (uintptr_t)code->insns;
	attr.insn_cnt = code->n;
	attr.license = (uintptr_t) "Dual MIT/GPL";
	return descriptor_adopt(bpf(BPF_PROG_LOAD, &attr), DESCRIPTOR_BPF_PROGRAM, ret_program);
}

static int programs_load(bool guarded)
{
	struct code page = { .n = 0 }, guard = { .n = 0 };
	emit_run(&page);
	emit_page_check(&page);
	if (guarded)
		emit_guard(&page);
	emit_count(&page, PASSED);
	int error = program_load(&page, &page_program);
	if (error || !guarded)
		return error;
	emit_guard(&guard);
	emit_return(&guard, 1);
	error = program_load(&guard, &guard_program);
	if (error)
		descriptor_close(&page_program);
	return error;
}

static int program_attach(int perf_fd, const struct descriptor *program)
{
	return ioctl(perf_fd, PERF_EVENT_IOC_SET_BPF, program->fd) < 0 ? -errno : 0;
}

/* --- where the kernel keeps handler and mask --- */

/* Lets the program look at an offset: a first touch of the page is a fault. */
static void look_at(int offset, char *page)
{
	atomic_store(&shared[HANDLER], 0);
	atomic_store(&shared[TASK_OFFSET], (uint64_t)offset);
	madvise(page, PAGE_BYTES, MADV_DONTNEED);
	*(volatile char *)page = 1;
}

/* Both words must be what we know to stand there. */
static int offset_search(char *page)
{
	struct sigaction action;
	sigset_t mask;
	uint64_t mask_word;
	if (sigaction(SIGTRAP, NULL, &action) < 0 || pthread_sigmask(SIG_SETMASK, NULL, &mask))
		return NO_OFFSET;
	memcpy(&mask_word, &mask, sizeof mask_word);
	for (int offset = 0; offset < TASK_BYTES_MAX; offset += 8) {
		look_at(offset, page);
		if (atomic_load(&shared[HANDLER]) == (uintptr_t)action.sa_sigaction &&
		    atomic_load(&shared[NEXT_WORD]) == mask_word)
			return offset;
	}
	return NO_OFFSET;
}

static void offset_find(void)
{
	struct perf_event_attr attributes = trap_attributes(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS, 0);
	struct descriptor program = DESCRIPTOR_NONE;
	struct code code = { .n = 0 };
	char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	attributes.sigtrap = attributes.remove_on_exec = attributes.inherit = attributes.inherit_thread = 0;
	attributes.disabled = 0;
	int fd = (int)syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	emit_look(&code);
	if (page != MAP_FAILED && fd >= 0 && program_load(&code, &program) == 0 && program_attach(fd, &program) == 0)
		sighand_offset = offset_search(page);
	descriptor_close(&program);
	if (fd >= 0)
		close(fd);
	if (page != MAP_FAILED)
		munmap(page, PAGE_BYTES);
}

/* --- the interface --- */

void filter_close(void)
{
	if (shared)
		munmap((void *)shared, PAGE_BYTES);
	descriptor_close(&guard_program);
	descriptor_close(&page_program);
	descriptor_close(&shared_map);
	descriptor_close(&blocks);
	shared = NULL;
}

static int maps_open(void)
{
	int fd = map_create(BPF_MAP_TYPE_HASH, sizeof(uint64_t), 64, BLOCKS_MAX, BPF_F_NO_PREALLOC);
	int error = descriptor_adopt(fd, DESCRIPTOR_BPF_MAP, &blocks);
	if (error)
		return error;
	fd = map_create(BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), SHARED_WORDS * sizeof(uint64_t), 1, BPF_F_MMAPABLE);
	error = descriptor_adopt(fd, DESCRIPTOR_BPF_MAP, &shared_map);
	if (error)
		return error;
	void *memory = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, shared_map.fd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	shared = memory;
	return 0;
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
	int error = maps_open();
	if (!error && sighand_offset == NO_OFFSET)
		offset_find();
	if (!error && (sighand_offset == NO_OFFSET || programs_load(true)))
		error = programs_load(false);
	if (error)
		filter_close();
	for (uint64_t at = 0; !error && page_set_next(pages, at, ADDRESS_END, &run); at = run.end)
		filter_update(run);
	return error;
}

int filter_attach(int perf_fd)
{
	return program_attach(perf_fd, &page_program);
}

int filter_attach_guard(int perf_fd)
{
	return program_attach(perf_fd, &guard_program);
}

bool filter_guards(void)
{
	return guard_program.fd >= 0;
}

uint64_t filter_runs(void)
{
	uint64_t n = 0;
	for (int i = 0; shared && i < RUNS_SLOTS; i++)
		n += atomic_load(&shared[RUNS_FIRST + i * 8]);
	return n;
}

struct filter_counts filter_counts(void)
{
	if (!shared)
		return (struct filter_counts){ 0 };
	return (struct filter_counts){ .passed = atomic_load_explicit(&shared[PASSED], memory_order_relaxed),
				       .blocked = atomic_load_explicit(&shared[BLOCKED], memory_order_relaxed),
				       .seized = atomic_load_explicit(&shared[SEIZED], memory_order_relaxed) };
}
