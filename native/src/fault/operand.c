/*
 * operand.c -- DESIGN: a trap after a store knows where the next instruction begins, not where the store did. So every
 * length is tried: bytes that end there, decode as a plain move to memory, and whose address by the registers is the
 * variable's are that store, for all that can be known. Moves from general and SSE registers and of constants are
 * understood; other stores (read-modify-write, AVX, strings) stay unknown. Runs on the writer's thread in signal
 * context; reads code no further than the page of the instruction's last byte. x86-64 only.
 */
#define _GNU_SOURCE
#include "operand.h"

#include "../base/prefix.h"

#include <string.h>
#include <ucontext.h>

#if defined(__x86_64__)

enum { LENGTH_MIN = 2, LENGTH_MAX = 15, STORE_MAX = 16 };

/* One candidate, as it is read from its first byte on. */
struct decoder {
	const ucontext_t *context;
	const uint8_t *at, *end;
	uint64_t ip;          /* of the next instruction */
	unsigned rex, repeat; /* repeat: F2, F3 or 0 */
	bool narrow;          /* 66 */
	unsigned reg;         /* the register's number in ModRM, extended */
	uint64_t address;     /* of what is stored */
	unsigned width;
	uint8_t bytes[STORE_MAX];
};

static uint64_t register_value(const ucontext_t *context, unsigned number)
{
	static const uint8_t places[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
					    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
	return (uint64_t)context->uc_mcontext.gregs[places[number]];
}

/* Ends at the opcode. False where a prefix stands that is not understood here. */
static bool read_prefixes(struct decoder *d)
{
	struct prefixes prefixes;
	const uint8_t *opcode = prefix_read(d->at, d->end, &prefixes);
	if (!opcode || prefixes.other)
		return false;
	d->at = opcode;
	d->narrow = prefixes.operand_16;
	d->repeat = prefixes.repeat;
	d->rex = prefixes.rex;
	return true;
}

/* A constant of 4 bytes, as it is extended. */
static uint64_t extended(const uint8_t *bytes)
{
	int32_t wide;
	memcpy(&wide, bytes, sizeof wide);
	return (uint64_t)wide;
}

static bool constant(struct decoder *d, unsigned n, uint64_t *ret_value)
{
	if (d->end - d->at < (ptrdiff_t)n)
		return false;
	if (n == 1)
		*ret_value = (uint64_t)(int8_t)*d->at;
	else if (n == 2)
		*ret_value = (uint64_t)d->at[0] | (uint64_t)d->at[1] << 8;
	else
		*ret_value = extended(d->at);
	d->at += n;
	return true;
}

/* ModRM, SIB and displacement; false for a register. */
static bool memory_operand(struct decoder *d)
{
	if (d->at == d->end)
		return false;
	unsigned byte = *d->at++, mode = byte >> 6, base = byte & 7;
	uint64_t moved = 0;
	d->reg = (byte >> 3 & 7) | (d->rex & REX_R ? 8 : 0);
	d->address = 0;
	if (mode == 3)
		return false;
	bool relative = mode == 0 && base == 5, indexed = base == 4;
	if (indexed) {
		if (d->at == d->end)
			return false;
		unsigned sib = *d->at++, index = (sib >> 3 & 7) | (d->rex & REX_X ? 8 : 0);
		base = sib & 7;
		if (index != 4)
			d->address = register_value(d->context, index) << (sib >> 6);
	}
	bool absolute = indexed && mode == 0 && base == 5;
	if (relative)
		d->address = d->ip;
	else if (!absolute)
		d->address += register_value(d->context, base | (d->rex & REX_B ? 8 : 0));
	unsigned n = mode == 1 ? 1 : mode == 2 || relative || absolute ? 4 : 0;
	if (n && !constant(d, n, &moved))
		return false;
	d->address += moved;
	return true;
}

static unsigned integer_width(const struct decoder *d)
{
	return d->rex & REX_W ? 8 : d->narrow ? 2 : 4;
}

static bool store_register(struct decoder *d, bool byte)
{
	uint64_t value;
	if (!memory_operand(d))
		return false;
	if (byte && !d->rex && d->reg >= 4)
		value = register_value(d->context, d->reg - 4) >> 8; /* ah, ch, dh, bh */
	else
		value = register_value(d->context, d->reg);
	d->width = byte ? 1 : integer_width(d);
	memcpy(d->bytes, &value, sizeof value);
	return true;
}

static bool store_constant(struct decoder *d, bool byte)
{
	uint64_t value;
	d->width = byte ? 1 : integer_width(d);
	if (!memory_operand(d) || d->reg & 7 || !constant(d, d->width < 4 ? d->width : 4, &value))
		return false;
	memcpy(d->bytes, &value, sizeof value);
	return true;
}

static bool store_vector(struct decoder *d, unsigned code)
{
	const struct _libc_fpstate *vectors = d->context->uc_mcontext.fpregs;
	if (!memory_operand(d) || !vectors)
		return false;
	if (code == 0x11)
		d->width = d->repeat == 0xf3 ? 4 : d->repeat == 0xf2 ? 8 : STORE_MAX;
	else if (code == 0x29 || (code == 0x7f && (d->narrow || d->repeat == 0xf3)))
		d->width = STORE_MAX;
	else if (code == 0xd6 && d->narrow)
		d->width = 8;
	else if (code == 0x7e && d->narrow && !d->repeat)
		d->width = d->rex & REX_W ? 8 : 4;
	else
		return false;
	memcpy(d->bytes, &vectors->_xmm[d->reg], STORE_MAX);
	return true;
}

static bool decode(struct decoder *d)
{
	if (!read_prefixes(d))
		return false;
	unsigned code = *d->at++;
	bool known;
	if (code == 0x0f && d->at < d->end)
		known = store_vector(d, *d->at++);
	else if (code == 0x88 || code == 0x89)
		known = store_register(d, code == 0x88);
	else
		known = (code == 0xc6 || code == 0xc7) && store_constant(d, code == 0xc6);
	return known && d->at == d->end;
}

/* Does the store explain the bytes of the variable that it covers? It covers at least one. */
static bool explains(const struct decoder *d, uint64_t address, uint32_t size_bytes, uint64_t value)
{
	const uint8_t *has = (const uint8_t *)&value;
	for (unsigned i = 0; i < d->width; i++) {
		uint64_t at = d->address + i;
		if (at >= address && at < address + size_bytes && has[at - address] != d->bytes[i])
			return false;
	}
	return true;
}

enum hit_proof operand_proof(const void *context, uint64_t address, uint32_t size_bytes, uint64_t value)
{
	const ucontext_t *u = context;
	uint64_t ip = (uint64_t)u->uc_mcontext.gregs[REG_RIP], room = ((ip - 1) & (PAGE_BYTES - 1)) + 1;
	bool own = false, other = false;
	for (unsigned n = LENGTH_MIN; n <= LENGTH_MAX && n <= room; n++) {
		const uint8_t *end = (const uint8_t *)(uintptr_t)ip;
		struct decoder d = { .context = u, .at = end - n, .end = end, .ip = ip };
		if (!decode(&d) || d.address >= address + size_bytes || d.address + d.width <= address)
			continue;
		if (explains(&d, address, size_bytes, value))
			own = true;
		else
			other = true;
	}
	return own == other ? HIT_UNPROVEN : own ? HIT_PROVEN : HIT_DISPROVEN;
}

#else

enum hit_proof operand_proof(const void *context, uint64_t address, uint32_t size_bytes, uint64_t value)
{
	(void)context, (void)address, (void)size_bytes, (void)value;
	return HIT_UNPROVEN;
}

#endif
