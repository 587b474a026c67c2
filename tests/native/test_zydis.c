/*
 * test_zydis.c -- the instruction decoder against Zydis: over random bytes, and over all code of this machine's C
 * library, Python and NumPy. Where ours says that an instruction writes, or that it does not, or how much, Zydis says
 * the same.
 */
#include "harness.h"

#include "base/store.h"

#ifdef __x86_64__

#include <Zydis/Zydis.h>
#include <elf.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { CODE_MAX = 15, RANDOM = 4000000 };

static ZydisDecoder zydis;

/* What Zydis knows of the instruction's writes to memory. */
struct known {
	bool writes;
	bool implied; /* no operand names the memory */
	unsigned width;
};

static struct known known_writes(const ZydisDecodedInstruction *instruction, const ZydisDecodedOperand *operands)
{
	struct known known = { 0 };
	for (unsigned i = 0; i < instruction->operand_count; i++) {
		const ZydisDecodedOperand *operand = &operands[i];
		if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY || !(operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		known.writes = true;
		known.implied = operand->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
		known.width = operand->size / 8;
	}
	return known;
}

static void complain(const uint8_t *code, const ZydisDecodedInstruction *instruction, const struct known *known,
		     unsigned width, int writes)
{
	char text[3 * CODE_MAX + 1] = "";
	for (unsigned i = 0; i < instruction->length; i++)
		snprintf(text + 3 * i, 4, "%02x ", code[i]);
	FAIL("%s (%s): ours says width %u, writes %d; Zydis width %u, writes %d", text,
	     ZydisMnemonicGetString(instruction->mnemonic), width, writes, known->width, known->writes);
}

/* Does ours claim nothing that Zydis denies? Returns the instruction's length; 0: Zydis knows none. */
static unsigned compare(const uint8_t *code, size_t n)
{
	ZydisDecodedInstruction instruction;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	int writes;
	if (ZYAN_FAILED(ZydisDecoderDecodeFull(&zydis, code, n, &instruction, operands)) ||
	    instruction.encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX) /* of Xeon Phi coprocessors alone */
		return 0;
	struct known known = known_writes(&instruction, operands);
	unsigned width = store_decode(code, instruction.length, &writes);
	bool agree = writes < 0 || (writes == 1) == known.writes;
	if (writes == 1 && width && width != STORE_REP && !known.implied)
		agree &= width == known.width;
	if (!agree)
		complain(code, &instruction, &known, width, writes);
	return instruction.length;
}

static void begin(void)
{
	CHECK(ZYAN_SUCCESS(ZydisDecoderInit(&zydis, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)));
}

static uint64_t random_number(void)
{
	static uint64_t state = 1;
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

TEST(random_bytes_are_read_alike)
{
	static const uint8_t first[] = { 0x66, 0xf2, 0xf3, 0x67, 0x64, 0xf0, 0x48, 0x44, 0x0f, 0xc4, 0xc5, 0x62 };
	unsigned n_read = 0;
	begin();
	for (int i = 0; i < RANDOM; i++) {
		uint8_t code[CODE_MAX];
		for (unsigned k = 0; k < sizeof code; k++)
			code[k] = (uint8_t)(random_number() >> 24);
		for (int k = 0; k < i % 4; k++)
			code[k] = first[random_number() % sizeof first];
		n_read += compare(code, sizeof code) != 0;
	}
	CHECK(n_read > RANDOM / 4);
}

/* All instructions of an executable segment, one behind the other; after what is none the next byte is tried. */
static unsigned compare_segment(const uint8_t *code, size_t n)
{
	unsigned n_read = 0;
	for (size_t at = 0; at < n;) {
		unsigned length = compare(code + at, n - at < CODE_MAX ? n - at : CODE_MAX);
		n_read += length != 0;
		at += length ? length : 1;
	}
	return n_read;
}

static unsigned compare_file(const char *path)
{
	struct stat status;
	unsigned n_read = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && fstat(fd, &status) == 0);
	const uint8_t *file = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(file != MAP_FAILED);
	const Elf64_Ehdr *head = (const void *)file;
	const Elf64_Phdr *segments = (const void *)(file + head->e_phoff);
	for (int i = 0; i < head->e_phnum; i++)
		if (segments[i].p_type == PT_LOAD && segments[i].p_flags & PF_X)
			n_read += compare_segment(file + segments[i].p_offset, segments[i].p_filesz);
	munmap((void *)(uintptr_t)file, (size_t)status.st_size);
	close(fd);
	return n_read;
}

/* Every file that the pattern names; there is one. */
static void compare_files(const char *pattern)
{
	glob_t found;
	unsigned n_read = 0;
	begin();
	if (glob(pattern, 0, NULL, &found))
		FAIL("no file is named %s", pattern);
	for (size_t i = 0; i < found.gl_pathc; i++)
		n_read += compare_file(found.gl_pathv[i]);
	globfree(&found);
	CHECK(n_read > 100000);
}

TEST(the_c_library_is_read_alike)
{
	compare_files("/lib/x86_64-linux-gnu/libc.so.6");
}

TEST(python_is_read_alike)
{
	compare_files("/usr/bin/python3.[0-9]*[0-9]");
}

TEST(numpy_is_read_alike)
{
	compare_files(".venv/lib/python3*/site-packages/numpy/*core/_multiarray_umath*.so");
}

#else

TEST(elsewhere_there_is_nothing_to_compare)
{
	int writes = 2;
	CHECK_EQ(store_decode((const uint8_t[]){ 0x88, 0x07 }, 2, &writes), 0);
	CHECK_EQ(writes, -1);
}

#endif
