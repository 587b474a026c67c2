/*
 * operand.h -- what the instruction before an instruction pointer has stored, where that can be told from registers and
 * code.
 */
#ifndef OPERAND_H
#define OPERAND_H

#include "../base/hits.h"

/*
 * The thread of `context` has just stored to the variable, which then had `value`: was that its own? By any thread, for
 * its own context. Signal-safe.
 */
enum hit_proof operand_proof(const void *context, uint64_t address, uint32_t size_bytes, uint64_t value);

#endif
