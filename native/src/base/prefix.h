/*
 * prefix.h -- the prefixes of an x86-64 instruction: the one reader of them. Signal-safe; no state.
 */
#ifndef PREFIX_H
#define PREFIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REX_W = 8, REX_R = 4, REX_X = 2, REX_B = 1 };

struct prefixes {
	bool operand_16; /* 66 */
	bool other;      /* a segment, 67 or lock */
	uint8_t repeat;  /* the last of F2 and F3, or 0 */
	uint8_t rex;     /* 0: none, or one that another prefix follows: that one counts for nothing */
};

/* Reads the prefixes of the bytes from `at` on. Returns where the opcode begins; NULL when they end before. */
static inline const uint8_t *prefix_read(const uint8_t *at, const uint8_t *end, struct prefixes *ret_prefixes)
{
	*ret_prefixes = (struct prefixes){ 0 };
	for (; at < end; at++) {
		switch (*at) {
		case 0x66: ret_prefixes->operand_16 = true; break;
		case 0xf2:
		case 0xf3: ret_prefixes->repeat = *at; break;
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
		case 0x64:
		case 0x65:
		case 0x67:
		case 0xf0: ret_prefixes->other = true; break;
		default:
			if ((*at & 0xf0) != 0x40)
				return at;
			ret_prefixes->rex = *at;
			continue;
		}
		ret_prefixes->rex = 0;
	}
	return NULL;
}

#endif
