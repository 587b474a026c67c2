/*
 * store.c -- DESIGN: one x86-64 instruction is read as prefixes, map, opcode and ModRM, then looked up in a table of
 * the forms that write memory. What is not in the table reads at most. Neither the length of the instruction nor its
 * address is computed: the fault gave the address. It owns nothing. Handlers run store_decode and store_reach, any
 * other thread all of it. What it does not know is "unknown", which costs an event its `exact`, never its truth.
 */
#include "store.h"
#include "memory.h"
#include "prefix.h"

#ifdef __x86_64__

enum {
	CODE_MAX = 15, /* bytes of the longest instruction */
	MAPS = 8
};

/* How the opcode was encoded, and its mandatory prefix; masks in the table. */
enum { LEGACY = 1, VEX = 2, EVEX = 4, ANY_VEX = VEX | EVEX, ANY = LEGACY | VEX | EVEX };
enum { NONE = 1, P66 = 2, PF3 = 4, PF2 = 8, ALL = 15 };

/* Widths up to 64 stand for themselves. */
enum width {
	BYTE_OR_OPERAND = 65, /* a byte when the opcode is even, else OPERAND */
	OPERAND,              /* 2, 4 or 8 */
	LONG,                 /* 4 or 8 */
	STACK,                /* 2 or 8 */
	PAIR,                 /* 8 or 16 */
	VECTOR,               /* 16, 32 or 64 */
	HALF,
	QUARTER,
	EIGHTH, /* of it */
	MASK    /* kmov */
};

enum effect {
	WRITES,  /* the ModRM operand, when that is memory */
	IMPLIED, /* memory that no ModRM names */
	STRING,  /* the same, repeated under a rep prefix */
	UNKNOWN
};

struct form {
	uint8_t encodings, map, prefixes, first, last;
	uint8_t regs; /* mask of ModRM.reg, 0: any */
	uint8_t effect, width;
};

/* The first row that fits is taken. */
/* clang-format off */
static const struct form forms[] = {
	/* one-byte opcodes */
	{ LEGACY, 0, ALL, 0x00, 0x01, 0, WRITES, BYTE_OR_OPERAND },   /* add */
	{ LEGACY, 0, ALL, 0x08, 0x09, 0, WRITES, BYTE_OR_OPERAND },   /* or */
	{ LEGACY, 0, ALL, 0x10, 0x11, 0, WRITES, BYTE_OR_OPERAND },   /* adc */
	{ LEGACY, 0, ALL, 0x18, 0x19, 0, WRITES, BYTE_OR_OPERAND },   /* sbb */
	{ LEGACY, 0, ALL, 0x20, 0x21, 0, WRITES, BYTE_OR_OPERAND },   /* and */
	{ LEGACY, 0, ALL, 0x28, 0x29, 0, WRITES, BYTE_OR_OPERAND },   /* sub */
	{ LEGACY, 0, ALL, 0x30, 0x31, 0, WRITES, BYTE_OR_OPERAND },   /* xor */
	{ LEGACY, 0, ALL, 0x50, 0x57, 0, IMPLIED, 0 },                   /* push */
	{ LEGACY, 0, ALL, 0x68, 0x68, 0, IMPLIED, 0 },
	{ LEGACY, 0, ALL, 0x6a, 0x6a, 0, IMPLIED, 0 },
	{ LEGACY, 0, ALL, 0x6c, 0x6d, 0, UNKNOWN, 0 },                   /* ins */
	{ LEGACY, 0, ALL, 0x80, 0x83, 0x7f, WRITES, BYTE_OR_OPERAND },   /* add ... xor, immediate; /7 is cmp */
	{ LEGACY, 0, ALL, 0x86, 0x87, 0, WRITES, BYTE_OR_OPERAND },      /* xchg */
	{ LEGACY, 0, ALL, 0x88, 0x89, 0, WRITES, BYTE_OR_OPERAND },      /* mov */
	{ LEGACY, 0, ALL, 0x8c, 0x8c, 0, WRITES, 2 },                    /* mov from a segment register */
	{ LEGACY, 0, NONE | P66, 0x8f, 0x8f, 0x01, WRITES, STACK },      /* pop */
	{ LEGACY, 0, ALL, 0x8f, 0x8f, 0, UNKNOWN, 0 },                   /* XOP */
	{ LEGACY, 0, ALL, 0x9c, 0x9c, 0, IMPLIED, 0 },                   /* pushf */
	{ LEGACY, 0, ALL, 0xa2, 0xa3, 0, IMPLIED, BYTE_OR_OPERAND },     /* mov to a 64-bit address */
	{ LEGACY, 0, ALL, 0xa4, 0xa5, 0, STRING, BYTE_OR_OPERAND },      /* movs */
	{ LEGACY, 0, ALL, 0xaa, 0xab, 0, STRING, BYTE_OR_OPERAND },      /* stos */
	{ LEGACY, 0, ALL, 0xc0, 0xc1, 0, WRITES, BYTE_OR_OPERAND },      /* shifts */
	{ LEGACY, 0, ALL, 0xc6, 0xc7, 0x01, WRITES, BYTE_OR_OPERAND },   /* mov, immediate */
	{ LEGACY, 0, ALL, 0xc8, 0xc8, 0, IMPLIED, 0 },                   /* enter */
	{ LEGACY, 0, ALL, 0xd0, 0xd3, 0, WRITES, BYTE_OR_OPERAND },      /* shifts */
	{ LEGACY, 0, ALL, 0xd5, 0xd5, 0, UNKNOWN, 0 },                   /* REX2 */
	{ LEGACY, 0, ALL, 0xd9, 0xd9, 0x0c, WRITES, 4 },                 /* fst, fstp */
	{ LEGACY, 0, ALL, 0xd9, 0xd9, 0x40, WRITES, 0 },                 /* fnstenv */
	{ LEGACY, 0, ALL, 0xd9, 0xd9, 0x80, WRITES, 2 },                 /* fnstcw */
	{ LEGACY, 0, ALL, 0xdb, 0xdb, 0x0e, WRITES, 4 },                 /* fisttp, fist, fistp */
	{ LEGACY, 0, ALL, 0xdb, 0xdb, 0x80, WRITES, 10 },                /* fstp, extended */
	{ LEGACY, 0, ALL, 0xdd, 0xdd, 0x0e, WRITES, 8 },                 /* fisttp, fst, fstp */
	{ LEGACY, 0, ALL, 0xdd, 0xdd, 0x40, WRITES, 0 },                 /* fnsave */
	{ LEGACY, 0, ALL, 0xdd, 0xdd, 0x80, WRITES, 2 },                 /* fnstsw */
	{ LEGACY, 0, ALL, 0xdf, 0xdf, 0x0e, WRITES, 2 },                 /* fisttp, fist, fistp */
	{ LEGACY, 0, ALL, 0xdf, 0xdf, 0x40, WRITES, 10 },                /* fbstp */
	{ LEGACY, 0, ALL, 0xdf, 0xdf, 0x80, WRITES, 8 },                 /* fistp */
	{ LEGACY, 0, ALL, 0xe8, 0xe8, 0, IMPLIED, 0 },                   /* call */
	{ LEGACY, 0, ALL, 0xf6, 0xf7, 0x0c, WRITES, BYTE_OR_OPERAND },   /* not, neg */
	{ LEGACY, 0, ALL, 0xfe, 0xff, 0x03, WRITES, BYTE_OR_OPERAND },   /* inc, dec */
	{ LEGACY, 0, ALL, 0xff, 0xff, 0x4c, IMPLIED, 0 },                /* call, push */

	/* 0f */
	{ LEGACY, 1, ALL, 0x00, 0x01, 0, UNKNOWN, 0 },                   /* descriptor tables */
	{ LEGACY, 1, ALL, 0x05, 0x05, 0, UNKNOWN, 0 },                   /* syscall: the kernel writes */
	{ LEGACY, 1, P66, 0x1b, 0x1b, 0, WRITES, 16 },                   /* bndmov */
	{ LEGACY, 1, ALL, 0x78, 0x78, 0, UNKNOWN, 0 },                   /* vmread */
	{ LEGACY, 1, ALL, 0xa7, 0xa7, 0, UNKNOWN, 0 },                   /* xstore, xcrypt: VIA's */
	{ LEGACY, 1, ALL, 0x34, 0x34, 0, UNKNOWN, 0 },                   /* sysenter */
	{ ANY, 1, NONE | P66, 0x11, 0x11, 0, WRITES, VECTOR },           /* movups, movupd */
	{ ANY, 1, PF3, 0x11, 0x11, 0, WRITES, 4 },                       /* movss */
	{ ANY, 1, PF2, 0x11, 0x11, 0, WRITES, 8 },                       /* movsd */
	{ ANY, 1, NONE | P66, 0x13, 0x13, 0, WRITES, 8 },                /* movlps, movlpd */
	{ ANY, 1, NONE | P66, 0x17, 0x17, 0, WRITES, 8 },                /* movhps, movhpd */
	{ ANY, 1, NONE | P66, 0x29, 0x29, 0, WRITES, VECTOR },           /* movaps, movapd */
	{ ANY, 1, NONE | P66, 0x2b, 0x2b, 0, WRITES, VECTOR },           /* movntps, movntpd */
	{ LEGACY, 1, PF3, 0x2b, 0x2b, 0, WRITES, 4 },                    /* movntss */
	{ LEGACY, 1, PF2, 0x2b, 0x2b, 0, WRITES, 8 },                    /* movntsd */
	{ LEGACY, 1, NONE, 0x7e, 0x7e, 0, WRITES, LONG },                /* movd, movq */
	{ ANY, 1, P66, 0x7e, 0x7e, 0, WRITES, LONG },
	{ LEGACY, 1, NONE, 0x7f, 0x7f, 0, WRITES, 8 },                   /* movq */
	{ ANY, 1, P66 | PF3, 0x7f, 0x7f, 0, WRITES, VECTOR },            /* movdqa, movdqu */
	{ EVEX, 1, PF2, 0x7f, 0x7f, 0, WRITES, VECTOR },
	{ LEGACY, 1, ALL, 0x90, 0x9f, 0, WRITES, 1 },                    /* setcc */
	{ VEX, 1, NONE | P66, 0x91, 0x91, 0, WRITES, MASK },             /* kmov */
	{ LEGACY, 1, ALL, 0xa0, 0xa0, 0, IMPLIED, 0 },                   /* push fs, gs */
	{ LEGACY, 1, ALL, 0xa8, 0xa8, 0, IMPLIED, 0 },
	{ LEGACY, 1, ALL, 0xa4, 0xa5, 0, WRITES, OPERAND },              /* shld */
	{ LEGACY, 1, ALL, 0xac, 0xad, 0, WRITES, OPERAND },              /* shrd */
	{ LEGACY, 1, ALL, 0xab, 0xab, 0, WRITES, 0 },                    /* bts, btr, btc by a register */
	{ LEGACY, 1, ALL, 0xb3, 0xb3, 0, WRITES, 0 },
	{ LEGACY, 1, ALL, 0xbb, 0xbb, 0, WRITES, 0 },
	{ LEGACY, 1, ALL, 0xba, 0xba, 0xe0, WRITES, OPERAND },           /* the same, immediate */
	{ LEGACY, 1, NONE, 0xae, 0xae, 0x51, WRITES, 0 },                /* fxsave, xsave, xsaveopt */
	{ LEGACY | VEX, 1, NONE, 0xae, 0xae, 0x08, WRITES, 4 },          /* stmxcsr */
	{ LEGACY, 1, PF3 | PF2, 0xae, 0xae, 0, UNKNOWN, 0 },             /* shadow stacks, ptwrite */
	{ LEGACY, 1, ALL, 0xb0, 0xb1, 0, WRITES, BYTE_OR_OPERAND },      /* cmpxchg: writes back what it read */
	{ LEGACY, 1, ALL, 0xc0, 0xc1, 0, WRITES, BYTE_OR_OPERAND },      /* xadd */
	{ LEGACY, 1, NONE, 0xc3, 0xc3, 0, WRITES, LONG },                /* movnti */
	{ LEGACY, 1, ALL, 0xc7, 0xc7, 0x02, WRITES, PAIR },              /* cmpxchg8b, cmpxchg16b */
	{ LEGACY, 1, ALL, 0xc7, 0xc7, 0, UNKNOWN, 0 },                   /* xsavec and others */
	{ ANY, 1, P66, 0xd6, 0xd6, 0, WRITES, 8 },                       /* movq */
	{ LEGACY, 1, NONE, 0xe7, 0xe7, 0, WRITES, 8 },                   /* movntq */
	{ ANY, 1, P66, 0xe7, 0xe7, 0, WRITES, VECTOR },                  /* movntdq */
	{ LEGACY | VEX, 1, NONE | P66, 0xf7, 0xf7, 0, UNKNOWN, 0 },      /* maskmov */

	/* 0f 38 */
	{ EVEX, 2, PF3, 0x10, 0x10, 0, WRITES, HALF },                   /* vpmovuswb ... vpmovusqd */
	{ EVEX, 2, PF3, 0x11, 0x11, 0, WRITES, QUARTER },
	{ EVEX, 2, PF3, 0x12, 0x12, 0, WRITES, EIGHTH },
	{ EVEX, 2, PF3, 0x13, 0x13, 0, WRITES, HALF },
	{ EVEX, 2, PF3, 0x14, 0x14, 0, WRITES, QUARTER },
	{ EVEX, 2, PF3, 0x15, 0x15, 0, WRITES, HALF },
	{ EVEX, 2, PF3, 0x20, 0x20, 0, WRITES, HALF },                   /* vpmovswb ... vpmovsqd */
	{ EVEX, 2, PF3, 0x21, 0x21, 0, WRITES, QUARTER },
	{ EVEX, 2, PF3, 0x22, 0x22, 0, WRITES, EIGHTH },
	{ EVEX, 2, PF3, 0x23, 0x23, 0, WRITES, HALF },
	{ EVEX, 2, PF3, 0x24, 0x24, 0, WRITES, QUARTER },
	{ EVEX, 2, PF3, 0x25, 0x25, 0, WRITES, HALF },
	{ EVEX, 2, PF3, 0x30, 0x30, 0, WRITES, HALF },                   /* vpmovwb ... vpmovqd */
	{ EVEX, 2, PF3, 0x31, 0x31, 0, WRITES, QUARTER },
	{ EVEX, 2, PF3, 0x32, 0x32, 0, WRITES, EIGHTH },
	{ EVEX, 2, PF3, 0x33, 0x33, 0, WRITES, HALF },
	{ EVEX, 2, PF3, 0x34, 0x34, 0, WRITES, QUARTER },
	{ EVEX, 2, PF3, 0x35, 0x35, 0, WRITES, HALF },
	{ VEX, 2, P66, 0x2e, 0x2f, 0, UNKNOWN, 0 },                      /* vmaskmov */
	{ VEX, 2, P66, 0x8e, 0x8e, 0, UNKNOWN, 0 },                      /* vpmaskmov */
	{ VEX, 2, ALL, 0x49, 0x4b, 0, UNKNOWN, 0 },                      /* tiles */
	{ EVEX, 2, P66, 0x63, 0x63, 0, UNKNOWN, 0 },                     /* compress */
	{ EVEX, 2, P66, 0x8a, 0x8b, 0, UNKNOWN, 0 },
	{ EVEX, 2, P66, 0xa0, 0xa3, 0, UNKNOWN, 0 },                     /* scatter */
	{ LEGACY, 2, NONE | P66, 0xf1, 0xf1, 0, WRITES, OPERAND },       /* movbe */
	{ LEGACY, 2, ALL, 0xf5, 0xf5, 0, UNKNOWN, 0 },                   /* shadow stacks */
	{ LEGACY, 2, NONE, 0xf6, 0xf6, 0, UNKNOWN, 0 },
	{ LEGACY, 2, P66, 0xf8, 0xf8, 0, IMPLIED, 64 },                  /* movdir64b */
	{ LEGACY, 2, PF3 | PF2, 0xf8, 0xf8, 0, UNKNOWN, 0 },
	{ LEGACY, 2, NONE, 0xf9, 0xf9, 0, WRITES, LONG },                /* movdiri */
	{ LEGACY, 2, ALL, 0xfc, 0xfc, 0, UNKNOWN, 0 },

	/* 0f 3a */
	{ ANY, 3, P66, 0x14, 0x14, 0, WRITES, 1 },                       /* pextrb, pextrw, pextrd, extractps */
	{ ANY, 3, P66, 0x15, 0x15, 0, WRITES, 2 },
	{ ANY, 3, P66, 0x16, 0x16, 0, WRITES, LONG },
	{ ANY, 3, P66, 0x17, 0x17, 0, WRITES, 4 },
	{ ANY_VEX, 3, P66, 0x19, 0x19, 0, WRITES, 16 },                  /* vextract */
	{ ANY_VEX, 3, P66, 0x39, 0x39, 0, WRITES, 16 },
	{ EVEX, 3, P66, 0x1b, 0x1b, 0, WRITES, 32 },
	{ EVEX, 3, P66, 0x3b, 0x3b, 0, WRITES, 32 },
	{ ANY_VEX, 3, P66, 0x1d, 0x1d, 0, WRITES, HALF },                /* vcvtps2ph */

	/* half precision */
	{ EVEX, 5, PF3, 0x11, 0x11, 0, WRITES, 2 },                      /* vmovsh */
	{ EVEX, 5, P66, 0x7e, 0x7e, 0, WRITES, 2 },                      /* vmovw */
};
/* clang-format on */

/* An instruction, taken apart as far as is needed. */
struct code {
	const uint8_t *at, *end;
	uint8_t encoding, map, prefix, opcode, modrm;
	bool operand_16, wide, rep, has_modrm;
	unsigned masked; /* the opmask register, 0: none */
	unsigned vector_bytes;
};

static bool next(struct code *code, uint8_t *ret_byte)
{
	if (code->at == code->end)
		return false;
	*ret_byte = *code->at++;
	return true;
}

/* Ends with the first byte of what follows the prefixes in `opcode`. */
static bool read_prefixes(struct code *code)
{
	struct prefixes prefixes;
	const uint8_t *opcode = prefix_read(code->at, code->end, &prefixes);
	if (!opcode)
		return false;
	code->at = opcode;
	code->operand_16 = prefixes.operand_16;
	code->rep = prefixes.repeat != 0;
	code->prefix = prefixes.repeat == 0xf2 ? PF2 : prefixes.repeat == 0xf3 ? PF3 : 0;
	code->wide = prefixes.rex & REX_W;
	return next(code, &code->opcode);
}

static bool read_vex(struct code *code)
{
	static const uint8_t prefixes[] = { NONE, P66, PF3, PF2 };
	bool three = code->opcode == 0xc4;
	uint8_t first = 0, second;
	if ((three && !next(code, &first)) || !next(code, &second))
		return false;
	code->encoding = VEX;
	code->map = three ? first & 0x1f : 1;
	code->wide = three && second & 0x80;
	code->prefix = prefixes[second & 3];
	code->vector_bytes = second & 4 ? 32 : 16;
	return next(code, &code->opcode);
}

static bool read_evex(struct code *code)
{
	static const uint8_t prefixes[] = { NONE, P66, PF3, PF2 };
	uint8_t bytes[3];
	for (int i = 0; i < 3; i++)
		if (!next(code, &bytes[i]))
			return false;
	code->encoding = EVEX;
	code->map = bytes[0] & 7;
	code->wide = bytes[1] & 0x80;
	code->prefix = prefixes[bytes[1] & 3];
	code->vector_bytes = 16u << (bytes[2] >> 5 & 3);
	code->masked = bytes[2] & 7;
	return code->vector_bytes <= 64 && next(code, &code->opcode); /* beyond that no CPU stores */
}

static bool read_legacy(struct code *code)
{
	code->encoding = LEGACY;
	code->vector_bytes = 16;
	if (!code->prefix)
		code->prefix = code->operand_16 ? P66 : NONE;
	if (code->opcode != 0x0f)
		return true;
	if (!next(code, &code->opcode))
		return false;
	code->map = 1;
	if (code->opcode != 0x38 && code->opcode != 0x3a)
		return true;
	code->map = code->opcode == 0x38 ? 2 : 3;
	return next(code, &code->opcode);
}

static bool read_code(struct code *code)
{
	if (!read_prefixes(code))
		return false;
	bool read = code->opcode == 0xc4 || code->opcode == 0xc5 ? read_vex(code)
		    : code->opcode == 0x62                       ? read_evex(code)
								 : read_legacy(code);
	code->has_modrm = read && next(code, &code->modrm);
	return read;
}

static const struct form *find_form(const struct code *code)
{
	uint8_t reg = (uint8_t)(1 << (code->modrm >> 3 & 7));
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		const struct form *form = &forms[i];
		if (form->map == code->map && code->opcode >= form->first && code->opcode <= form->last &&
		    form->encodings & code->encoding && form->prefixes & code->prefix &&
		    (!form->regs || (code->has_modrm && form->regs & reg)))
			return form;
	}
	return NULL;
}

static unsigned operand_bytes(const struct code *code)
{
	return code->wide ? 8 : code->operand_16 ? 2 : 4;
}

static unsigned width_of(const struct form *form, const struct code *code)
{
	switch (form->width) {
	case BYTE_OR_OPERAND: return code->opcode & 1 ? operand_bytes(code) : 1;
	case OPERAND: return operand_bytes(code);
	case LONG: return code->wide ? 8 : 4;
	case STACK: return code->operand_16 && !code->wide ? 2 : 8;
	case PAIR: return code->wide ? 16 : 8;
	case VECTOR: return code->vector_bytes;
	case HALF: return code->vector_bytes / 2;
	case QUARTER: return code->vector_bytes / 4;
	case EIGHTH: return code->vector_bytes / 8;
	case MASK: return (code->prefix == P66 ? 1u : 2u) << (code->wide ? 2 : 0);
	default: return form->width;
	}
}

unsigned store_decode(const uint8_t *bytes, size_t n, int *ret_writes)
{
	struct code code = { .at = bytes, .end = bytes + n };
	*ret_writes = -1;
	if (!read_code(&code) || code.map == 4 || code.map >= MAPS)
		return 0;
	const struct form *form = find_form(&code);
	if (!form || (form->effect == WRITES && code.has_modrm && code.modrm >= 0xc0)) {
		*ret_writes = 0;
		return 0;
	}
	if (form->effect == UNKNOWN || code.masked || (form->effect == WRITES && !code.has_modrm))
		return 0;
	*ret_writes = 1;
	return form->effect == STRING && code.rep ? STORE_REP : width_of(form, &code);
}

unsigned store_reach(const uint8_t *bytes, size_t n, struct store_mask *ret_mask)
{
	struct code code = { .at = bytes, .end = bytes + n };
	*ret_mask = (struct store_mask){ 0, 0 };
	if (!read_code(&code) || code.map == 4 || code.map >= MAPS)
		return 0;
	const struct form *form = find_form(&code);
	bool stores = form && form->effect != UNKNOWN && code.has_modrm && code.modrm < 0xc0;
	if (form && form->effect == STRING)
		return code.rep ? 0 : width_of(form, &code);
	if (stores && code.masked)
		*ret_mask = (struct store_mask){ code.masked,
						 code.prefix == PF2 ? (code.wide ? 2 : 1) : (code.wide ? 8 : 4) };
	return stores ? width_of(form, &code) : 0;
}

/* Reads up to 15 bytes at `ip`, fewer where the mapping ends. */
static size_t read_bytes(uint64_t ip, uint8_t *code)
{
	size_t here = min_u64(CODE_MAX, PAGE_BYTES - (ip & (PAGE_BYTES - 1)));
	if (ip >= ADDRESS_END || memory_copy(code, ip, here) < 0)
		return 0;
	return here < CODE_MAX && memory_copy(code + here, ip + here, CODE_MAX - here) == 0 ? CODE_MAX : here;
}

unsigned store_width(uint64_t ip)
{
	uint8_t code[CODE_MAX];
	int writes;
	return store_decode(code, read_bytes(ip, code), &writes);
}

int store_writes(uint64_t ip)
{
	uint8_t code[CODE_MAX];
	int writes;
	store_decode(code, read_bytes(ip, code), &writes);
	return writes;
}

#else

unsigned store_decode(const uint8_t *code, size_t n, int *ret_writes)
{
	(void)code;
	(void)n;
	*ret_writes = -1;
	return 0;
}

unsigned store_reach(const uint8_t *code, size_t n, struct store_mask *ret_mask)
{
	(void)code;
	(void)n;
	(void)ret_mask;
	return 0;
}

unsigned store_width(uint64_t ip)
{
	(void)ip;
	return 0;
}

int store_writes(uint64_t ip)
{
	(void)ip;
	return -1;
}

#endif
