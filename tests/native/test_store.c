/*
 * test_store.c -- the instruction decoder against what the assembler writes: each row is assembled into the program.
 */
#include "harness.h"

#include "base/store.h"

#include <sys/mman.h>

#ifdef __x86_64__

struct row {
	const uint8_t *code;
	uint64_t n, width;
	int64_t writes;
	const char *text;
};

extern const struct row __start_rows[], __stop_rows[];

/* Assembles `text` where nothing runs it, and notes what the decoder must say of it. */
#define ROW(width, writes, text)                                                                                       \
	__asm__(".pushsection .text.rows, \"ax\"\n771: " text "\n772: .popsection\n"                                   \
		".pushsection .rodata.rows, \"a\"\n773: .asciz \"" text "\"\n.popsection\n"                            \
		".pushsection rows, \"aw\"\n.quad 771b, 772b - 771b, " #width ", " #writes ", 773b\n.popsection\n");
#define STORES(width, text) ROW(width, 1, text)
#define READS(text) ROW(0, 0, text)
#define UNSURE(text) ROW(0, -1, text)

/* mov */
STORES(1, "movb %al, (%rdi)")
STORES(1, "movb %r9b, 5(%rsp)")
STORES(1, "movb %sil, (%rdi)")
STORES(2, "movw %ax, (%rdi)")
STORES(2, "movw %r10w, (%r11,%r12,2)")
STORES(4, "movl %eax, (%rdi)")
STORES(4, "movl %eax, 0x12345(%rip)")
STORES(4, "movl %eax, %fs:0x10")
STORES(4, "movl %eax, %gs:(%rdi)")
STORES(4, "addr32 movl %eax, (%edi)")
STORES(8, "movq %rax, (%rdi)")
STORES(8, "movq %r15, 0x1000(%r14,%r13,8)")
STORES(1, "movb $1, (%rdi)")
STORES(2, "movw $1, (%rdi)")
STORES(4, "movl $1, (%rdi)")
STORES(8, "movq $1, (%rdi)")
STORES(1, "movabsb %al, 0x1122334455667788")
STORES(2, "movabsw %ax, 0x1122334455667788")
STORES(4, "movabsl %eax, 0x1122334455667788")
STORES(8, "movabsq %rax, 0x1122334455667788")
STORES(2, "movw %ds, (%rdi)")
STORES(2, "movbew %ax, (%rdi)")
STORES(4, "movbel %eax, (%rdi)")
STORES(8, "movbeq %rax, (%rdi)")
STORES(4, "movnti %eax, (%rdi)")
STORES(8, "movnti %rax, (%rdi)")
STORES(4, "movdiri %eax, (%rdi)")
STORES(8, "movdiri %rax, (%rdi)")
STORES(64, "movdir64b (%rsi), %rdi")
READS("movb (%rdi), %al")
READS("movl (%rdi), %eax")
READS("movq (%rdi), %rax")
READS("movl %eax, %ebx")
READS("movq $1, %rax")
READS("movabsq $0x1122334455667788, %rax")
READS("movabsq 0x1122334455667788, %rax")
READS("movzbl (%rdi), %eax")
READS("movswq (%rdi), %rax")
READS("movslq (%rdi), %rax")
READS("movbel (%rdi), %eax")
READS("crc32l (%rdi), %eax")
READS("leaq (%rdi), %rax")
READS("movw (%rdi), %ds")
READS("cmovel (%rdi), %eax")

/* arithmetic */
STORES(1, "addb %al, (%rdi)")
STORES(2, "addw %ax, (%rdi)")
STORES(4, "addl %eax, (%rdi)")
STORES(8, "addq %rax, (%rdi)")
STORES(1, "orb %al, (%rdi)")
STORES(4, "orl %eax, (%rdi)")
STORES(4, "adcl %eax, (%rdi)")
STORES(4, "sbbl %eax, (%rdi)")
STORES(8, "andq %rax, (%rdi)")
STORES(8, "subq %rax, (%rdi)")
STORES(8, "xorq %rax, (%rdi)")
STORES(1, "addb $1, (%rdi)")
STORES(2, "addw $0x1234, (%rdi)")
STORES(4, "addl $1, (%rdi)")
STORES(4, "addl $0x123456, (%rdi)")
STORES(8, "addq $1, (%rdi)")
STORES(8, "subq $0x123456, (%rdi)")
STORES(1, "orb $1, (%rdi)")
STORES(4, "xorl $1, (%rdi)")
STORES(4, "lock addl $1, (%rdi)")
STORES(8, "lock orq %rax, (%rdi)")
STORES(1, "incb (%rdi)")
STORES(2, "incw (%rdi)")
STORES(4, "incl (%rdi)")
STORES(8, "incq (%rdi)")
STORES(8, "decq (%rdi)")
STORES(8, "lock decq (%rdi)")
STORES(1, "negb (%rdi)")
STORES(4, "negl (%rdi)")
STORES(8, "notq (%rdi)")
STORES(1, "shlb $3, (%rdi)")
STORES(4, "shll $3, (%rdi)")
STORES(4, "sarl (%rdi)")
STORES(8, "shrq %cl, (%rdi)")
STORES(2, "rolw $1, (%rdi)")
STORES(4, "shldl $3, %eax, (%rdi)")
STORES(8, "shrdq %cl, %rax, (%rdi)")
STORES(1, "sete (%rdi)")
STORES(1, "setnl 7(%rdi)")
STORES(4, "btsl $3, (%rdi)")
STORES(8, "btrq $3, (%rdi)")
STORES(2, "btcw $3, (%rdi)")
STORES(0, "btsl %eax, (%rdi)")
STORES(0, "lock btcq %rax, (%rdi)")
READS("addl (%rdi), %eax")
READS("addl %eax, %ebx")
READS("addl $1, %ebx")
READS("addl $1, %eax")
READS("cmpb %al, (%rdi)")
READS("cmpl %eax, (%rdi)")
READS("cmpl (%rdi), %eax")
READS("cmpb $1, (%rdi)")
READS("cmpl $0x123456, (%rdi)")
READS("cmpq $1, (%rdi)")
READS("testb $1, (%rdi)")
READS("testl $1, (%rdi)")
READS("testl %eax, (%rdi)")
READS("incl %eax")
READS("negl %eax")
READS("mull (%rdi)")
READS("idivq (%rdi)")
READS("imull (%rdi), %eax")
READS("imull $3, (%rdi), %eax")
READS("shll $3, %eax")
READS("shldl $3, %eax, %ebx")
READS("sete %al")
READS("btl $3, (%rdi)")
READS("btl %eax, (%rdi)")
READS("popcntl (%rdi), %eax")
READS("bsfl (%rdi), %eax")
READS("andnl (%rdi), %eax, %ebx")
READS("pdepl (%rdi), %eax, %ebx")

/* exchange */
STORES(1, "xchgb %al, (%rdi)")
STORES(4, "xchgl %eax, (%rdi)")
STORES(8, "xchgq %rax, (%rdi)")
STORES(1, "cmpxchgb %cl, (%rdi)")
STORES(4, "lock cmpxchgl %ecx, (%rdi)")
STORES(8, "lock cmpxchgq %rcx, (%rdi)")
STORES(8, "lock cmpxchg8b (%rdi)")
STORES(16, "lock cmpxchg16b (%rdi)")
STORES(1, "xaddb %al, (%rdi)")
STORES(4, "lock xaddl %eax, (%rdi)")
STORES(8, "lock xaddq %rax, (%rdi)")
READS("xchgl %eax, %ebx")
READS("cmpxchgl %ecx, %ebx")

/* strings */
STORES(1, "movsb")
STORES(2, "movsw")
STORES(4, "movsl")
STORES(8, "movsq")
STORES(1, "stosb")
STORES(2, "stosw")
STORES(4, "stosl")
STORES(8, "stosq")
STORES(4096, "rep movsb")
STORES(4096, "rep movsq")
STORES(4096, "rep stosb")
STORES(4096, "rep stosl")
READS("lodsb")
READS("rep cmpsb")
READS("repne scasb")

/* the stack, and what never touches memory */
STORES(0, "push %rax")
STORES(0, "push $1")
STORES(0, "push $0x12345")
STORES(0, "push (%rdi)")
STORES(0, "pushf")
STORES(0, "push %fs")
STORES(0, "call .+5")
STORES(0, "call *(%rdi)")
STORES(0, "call *%rax")
STORES(0, "enter $8, $0")
STORES(8, "pop (%rdi)")
READS("pop %rax")
READS("jmp *(%rdi)")
READS("jmp *%rax")
READS("ret")
READS("leave")
READS("nop")
READS("nopw 0x0(%rax,%rax,1)")
READS("endbr64")
READS("bswap %eax")
READS("rdtsc")
READS("cpuid")
READS("je .+2")
READS("ud2")
READS("mfence")
READS("prefetchw (%rdi)")
READS("clflush (%rdi)")
READS("clflushopt (%rdi)")
READS("clwb (%rdi)")
UNSURE("syscall")
UNSURE("xsavec (%rdi)")
UNSURE("sgdt (%rdi)")

/* x87 */
STORES(4, "fsts (%rdi)")
STORES(4, "fstps (%rdi)")
STORES(8, "fstl (%rdi)")
STORES(8, "fstpl (%rdi)")
STORES(10, "fstpt (%rdi)")
STORES(2, "fists (%rdi)")
STORES(2, "fistps (%rdi)")
STORES(4, "fistl (%rdi)")
STORES(4, "fistpl (%rdi)")
STORES(8, "fistpll (%rdi)")
STORES(2, "fisttps (%rdi)")
STORES(4, "fisttpl (%rdi)")
STORES(8, "fisttpll (%rdi)")
STORES(10, "fbstp (%rdi)")
STORES(2, "fnstcw (%rdi)")
STORES(2, "fnstsw (%rdi)")
STORES(0, "fnstenv (%rdi)")
STORES(0, "fnsave (%rdi)")
READS("flds (%rdi)")
READS("fldl (%rdi)")
READS("fldt (%rdi)")
READS("fildll (%rdi)")
READS("fadds (%rdi)")
READS("faddl (%rdi)")
READS("fiadds (%rdi)")
READS("fstp %st(1)")
READS("fldcw (%rdi)")
READS("fld1")

/* SSE */
STORES(16, "movups %xmm0, (%rdi)")
STORES(16, "movups %xmm9, (%r9)")
STORES(16, "movupd %xmm0, (%rdi)")
STORES(16, "movaps %xmm0, (%rdi)")
STORES(16, "movapd %xmm0, (%rdi)")
STORES(16, "movdqa %xmm0, (%rdi)")
STORES(16, "movdqu %xmm0, (%rdi)")
STORES(16, "movntdq %xmm0, (%rdi)")
STORES(16, "movntps %xmm0, (%rdi)")
STORES(16, "movntpd %xmm0, (%rdi)")
STORES(4, "movss %xmm0, (%rdi)")
STORES(8, "movsd %xmm0, (%rdi)")
STORES(4, "movd %xmm0, (%rdi)")
STORES(8, "movq %xmm0, (%rdi)")
STORES(8, ".byte 0x66, 0x48, 0x0f, 0x7e, 0x07")
STORES(8, "movlps %xmm0, (%rdi)")
STORES(8, "movhps %xmm0, (%rdi)")
STORES(8, "movlpd %xmm0, (%rdi)")
STORES(8, "movhpd %xmm0, (%rdi)")
STORES(8, "movq %mm0, (%rdi)")
STORES(4, "movd %mm0, (%rdi)")
STORES(8, "movntq %mm0, (%rdi)")
STORES(4, "movntss %xmm0, (%rdi)")
STORES(8, "movntsd %xmm0, (%rdi)")
STORES(1, "pextrb $1, %xmm0, (%rdi)")
STORES(2, "pextrw $1, %xmm0, (%rdi)")
STORES(4, "pextrd $1, %xmm0, (%rdi)")
STORES(8, "pextrq $1, %xmm0, (%rdi)")
STORES(4, "extractps $1, %xmm0, (%rdi)")
STORES(4, "stmxcsr (%rdi)")
STORES(0, "fxsave (%rdi)")
STORES(0, "xsave (%rdi)")
STORES(0, "xsaveopt (%rdi)")
UNSURE("maskmovdqu %xmm0, %xmm1")
READS("movups (%rdi), %xmm0")
READS("movups %xmm0, %xmm1")
READS("movdqa (%rdi), %xmm0")
READS("movdqu (%rdi), %xmm0")
READS("movntdqa (%rdi), %xmm0")
READS("movss (%rdi), %xmm0")
READS("movd (%rdi), %xmm0")
READS("movq (%rdi), %xmm0")
READS("movd %xmm0, %eax")
READS("movhlps %xmm0, %xmm1")
READS("movddup (%rdi), %xmm0")
READS("addps (%rdi), %xmm0")
READS("paddb (%rdi), %xmm0")
READS("pcmpeqb (%rdi), %xmm0")
READS("cmpps $1, (%rdi), %xmm0")
READS("cvtsi2sdq (%rdi), %xmm0")
READS("ucomisd (%rdi), %xmm0")
READS("pshufb (%rdi), %xmm0")
READS("pshufd $1, (%rdi), %xmm0")
READS("ptest (%rdi), %xmm0")
READS("pinsrd $1, (%rdi), %xmm0")
READS("palignr $1, (%rdi), %xmm0")
READS("pcmpistri $1, (%rdi), %xmm0")
READS("aesenc (%rdi), %xmm0")
READS("ldmxcsr (%rdi)")
READS("fxrstor (%rdi)")

/* AVX */
STORES(16, "vmovups %xmm0, (%rdi)")
STORES(32, "vmovups %ymm0, (%rdi)")
STORES(32, "vmovups %ymm9, (%r9)")
STORES(32, "vmovupd %ymm0, (%rdi)")
STORES(32, "vmovaps %ymm0, (%rdi)")
STORES(16, "vmovdqa %xmm0, (%rdi)")
STORES(32, "vmovdqa %ymm0, (%rdi)")
STORES(32, "vmovdqu %ymm15, (%r15,%r14,4)")
STORES(32, "vmovntdq %ymm0, (%rdi)")
STORES(32, "vmovntps %ymm0, (%rdi)")
STORES(4, "vmovss %xmm0, (%rdi)")
STORES(8, "vmovsd %xmm0, (%rdi)")
STORES(4, "vmovd %xmm0, (%rdi)")
STORES(8, "vmovq %xmm0, (%rdi)")
STORES(8, "vmovlps %xmm0, (%rdi)")
STORES(8, "vmovhpd %xmm0, (%rdi)")
STORES(1, "vpextrb $1, %xmm0, (%rdi)")
STORES(2, "vpextrw $1, %xmm0, (%rdi)")
STORES(4, "vpextrd $1, %xmm0, (%rdi)")
STORES(8, "vpextrq $1, %xmm0, (%rdi)")
STORES(4, "vextractps $1, %xmm0, (%rdi)")
STORES(16, "vextractf128 $1, %ymm0, (%rdi)")
STORES(16, "vextracti128 $1, %ymm0, (%rdi)")
STORES(8, "vcvtps2ph $1, %xmm0, (%rdi)")
STORES(16, "vcvtps2ph $1, %ymm0, (%rdi)")
STORES(4, "vstmxcsr (%rdi)")
STORES(1, "kmovb %k1, (%rdi)")
STORES(2, "kmovw %k1, (%rdi)")
STORES(4, "kmovd %k1, (%rdi)")
STORES(8, "kmovq %k1, (%rdi)")
UNSURE("vmaskmovps %ymm0, %ymm1, (%rdi)")
UNSURE("vpmaskmovd %ymm0, %ymm1, (%rdi)")
READS("vmovups (%rdi), %ymm0")
READS("vmovups %ymm0, %ymm1")
READS("vmovdqu (%rdi), %ymm0")
READS("vmovss (%rdi), %xmm0")
READS("vmovd (%rdi), %xmm0")
READS("vmaskmovps (%rdi), %ymm0, %ymm1")
READS("vpmaskmovd (%rdi), %ymm0, %ymm1")
READS("vaddps (%rdi), %ymm0, %ymm1")
READS("vpaddd (%rdi), %ymm0, %ymm1")
READS("vbroadcastss (%rdi), %ymm0")
READS("vinsertf128 $1, (%rdi), %ymm0, %ymm1")
READS("vfmadd231ps (%rdi), %ymm0, %ymm1")
READS("vpgatherdd %ymm0, (%rdi,%ymm1,4), %ymm2")
READS("vzeroupper")
READS("kmovw (%rdi), %k1")

/* AVX-512 */
STORES(64, "vmovups %zmm0, (%rdi)")
STORES(64, "vmovupd %zmm0, (%rdi)")
STORES(64, "vmovaps %zmm31, 64(%rdi)")
STORES(32, "vmovups %ymm16, (%rdi)")
STORES(16, "vmovups %xmm16, (%rdi)")
STORES(64, "vmovdqa32 %zmm0, (%rdi)")
STORES(64, "vmovdqa64 %zmm0, (%rdi)")
STORES(64, "vmovdqu8 %zmm0, (%rdi)")
STORES(64, "vmovdqu16 %zmm0, (%rdi)")
STORES(32, "vmovdqu32 %ymm17, (%rdi)")
STORES(16, "vmovdqu64 %xmm17, (%rdi)")
STORES(64, "vmovntdq %zmm0, (%rdi)")
STORES(64, "vmovntpd %zmm0, (%rdi)")
STORES(4, "vmovss %xmm16, (%rdi)")
STORES(8, "vmovsd %xmm16, (%rdi)")
STORES(4, "vmovd %xmm16, (%rdi)")
STORES(8, "vmovq %xmm16, (%rdi)")
STORES(8, "vmovlps %xmm16, (%rdi)")
STORES(1, "vpextrb $1, %xmm16, (%rdi)")
STORES(8, "vpextrq $1, %xmm16, (%rdi)")
STORES(16, "vextractf32x4 $1, %zmm0, (%rdi)")
STORES(16, "vextracti64x2 $1, %zmm0, (%rdi)")
STORES(32, "vextractf64x4 $1, %zmm0, (%rdi)")
STORES(32, "vextracti32x8 $1, %zmm0, (%rdi)")
STORES(32, "vpmovwb %zmm0, (%rdi)")
STORES(16, "vpmovdb %zmm0, (%rdi)")
STORES(8, "vpmovqb %zmm0, (%rdi)")
STORES(2, "vpmovqb %xmm0, (%rdi)")
STORES(32, "vpmovdw %zmm0, (%rdi)")
STORES(16, "vpmovqw %zmm0, (%rdi)")
STORES(32, "vpmovqd %zmm0, (%rdi)")
STORES(16, "vpmovsdb %zmm0, (%rdi)")
STORES(32, "vpmovusqd %zmm0, (%rdi)")
STORES(32, "vcvtps2ph $1, %zmm0, (%rdi)")
STORES(2, "vmovsh %xmm0, (%rdi)")
STORES(2, "vmovw %xmm0, (%rdi)")
UNSURE("vmovups %zmm0, (%rdi){%k1}")
UNSURE("vmovdqu8 %zmm0, (%rdi){%k7}")
UNSURE("vpcompressd %zmm0, (%rdi){%k1}")
UNSURE("vcompressps %zmm0, (%rdi){%k1}")
UNSURE("vpscatterdd %zmm0, (%rdi,%zmm1,4){%k1}")
READS("vmovups (%rdi), %zmm0")
READS("vmovups (%rdi), %zmm0{%k1}")
READS("vmovups %zmm0, %zmm1{%k1}")
READS("vpmovwb %zmm0, %ymm1")
READS("vpmovzxbd (%rdi), %zmm0")
READS("vaddps (%rdi){1to16}, %zmm0, %zmm1")
READS("vpgatherdd (%rdi,%zmm1,4), %zmm0{%k1}")
READS("vpternlogd $1, (%rdi), %zmm0, %zmm1")

TEST(every_form_is_decoded)
{
	int n_wrong = 0;
	for (const struct row *row = __start_rows; row < __stop_rows; row++) {
		int writes;
		unsigned width = store_decode(row->code, row->n, &writes);
		if (width != row->width || writes != row->writes) {
			fprintf(stderr, "%s: width %u for %u, writes %d for %d\n", row->text, width,
				(unsigned)row->width, writes, (int)row->writes);
			n_wrong++;
		}
	}
	CHECK_OP(__stop_rows - __start_rows, >, 300);
	CHECK_EQ(n_wrong, 0);
}

TEST(the_same_is_read_from_memory)
{
	for (const struct row *row = __start_rows; row < __stop_rows; row++) {
		CHECK_EQ(store_width((uintptr_t)row->code), row->width);
		CHECK_EQ(store_writes((uintptr_t)row->code), row->writes);
	}
}

/* The instruction ends where the mapping ends; cut short it is not known, and nothing is read beyond. */
TEST(a_page_may_end_after_the_instruction)
{
	long page = sysconf(_SC_PAGESIZE);
	uint8_t *memory = mmap(NULL, (size_t)page * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	munmap(memory + page, (size_t)page);
	for (const struct row *row = __start_rows; row < __stop_rows; row++) {
		uint8_t *code = memory + page - row->n;
		memcpy(code, row->code, row->n);
		CHECK_EQ(store_width((uintptr_t)code), row->width);
		CHECK_EQ(store_writes((uintptr_t)code), row->writes);
	}
}

TEST(an_instruction_may_cross_pages)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *memory = mmap(NULL, page * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	for (const struct row *row = __start_rows; row < __stop_rows; row++) {
		memcpy(memory + page - 1, row->code, row->n);
		CHECK_EQ(store_width((uintptr_t)memory + page - 1), row->width);
	}
}

TEST(no_address_crashes_it)
{
	static const uint64_t bad[] = { 0, 1, 4095, 0x7fffffffffff, 0x800000000000, UINT64_MAX, UINT64_MAX - 20 };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		CHECK_EQ(store_width(bad[i]), 0);
		CHECK_EQ(store_writes(bad[i]), -1);
	}
}

TEST(cut_short_it_is_not_known)
{
	static const uint8_t evex[] = { 0x62, 0xf1, 0x7c, 0x48, 0x11, 0x07 };
	int writes;
	for (size_t n = 0; n < sizeof evex; n++) {
		CHECK_EQ(store_decode(evex, n, &writes), 0);
		CHECK_EQ(writes, -1);
	}
	CHECK_EQ(store_decode(evex, sizeof evex, &writes), 64);
}

TEST(vectors_that_no_cpu_has_are_not_known)
{
	static const uint8_t evex[] = { 0x62, 0xf1, 0x7c, 0x68, 0x11, 0x07 };
	int writes;
	CHECK_EQ(store_decode(evex, sizeof evex, &writes), 0);
	CHECK_EQ(writes, -1);
}

TEST(any_bytes_are_decoded)
{
	for (int i = 0; i < 2000000; i++) {
		uint8_t code[15];
		int writes = 2;
		for (size_t k = 0; k < sizeof code; k++)
			code[k] = (uint8_t)(harness_random() >> 32);
		unsigned width = store_decode(code, harness_random() % 16, &writes);
		CHECK(width <= 64 || width == STORE_REP);
		CHECK(writes >= -1 && writes <= 1);
		CHECK(width == 0 || writes == 1);
	}
}

#else

TEST(elsewhere_nothing_is_known)
{
	static const uint8_t code[16];
	int writes = 2;
	CHECK_EQ(store_decode(code, sizeof code, &writes), 0);
	CHECK_EQ(writes, -1);
	CHECK_EQ(store_width((uintptr_t)code), 0);
	CHECK_EQ(store_writes((uintptr_t)code), -1);
}

#endif
