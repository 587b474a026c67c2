/*
 * symbol.h -- from an instruction to a name: function, object, offset, and source line where there is debug
 * information.
 *
 *   who may run together    symbol_known: any thread but never a handler, with everything
 *                           everything else: one thread at a time, the resolver's
 */
#ifndef SYMBOL_H
#define SYMBOL_H

#include "../base/stack.h"

struct symbol {
	const char *symbol; /* the function; of C++ and Rust as its source spells it, "" when unknown */
	const char *object; /* the file that holds it, "" when the address is in no object */
	uint64_t offset; /* of the address from the symbol, or from the object's load address when there is no symbol */
	const char *file;     /* of the source line, "" when unknown */
	int line;             /* 0 when unknown */
	const char *function; /* the one that the line is in: `symbol`, or one that was inlined there */
};

struct symbol_table;

/* One at a time. NULL when there is no memory; symbol_resolve takes that too. Opens no file yet. */
struct symbol_table *symbol_table_open(void);
/*
 * The calling thread will resolve symbols: what libdw and libelf keep for each thread is allocated now. Later, when the
 * process has no memory or mapping left, the C library would end it for want of that.
 */
void symbol_thread_begin(void);
/* `table` may be NULL. Strings that it gave out stay valid. */
void symbol_table_close(struct symbol_table *table);

/* What is known of `ip` already; false when it has to be looked up. */
bool symbol_known(struct symbol_table *table, uint64_t ip, struct symbol *ret_symbol);

/*
 * Looks `ip` up, an instruction's own address (not a return address); any number is allowed. Never NULL: what is not
 * known is "" or 0. The struct is valid until the next call, its strings as long as the process. Blocks for as long as
 * it takes to read an object's symbols, the first time. What could not be read for want of descriptors, memory or the
 * file is asked again after a second.
 */
const struct symbol *symbol_resolve(struct symbol_table *table, uint64_t ip);

/*
 * The calls that a stack is made of, innermost first: the instruction that it was taken at, then of each caller one
 * within the call. Follows the objects' unwind tables, and frame pointers through code that has none, until there are
 * `depth` from the first outside the C library on, or `n`, or nothing more is known. Returns how many. Blocks as
 * symbol_resolve does.
 */
unsigned symbol_walk(struct symbol_table *table, const struct stack *stack, unsigned depth, uint64_t *ret_ips,
		     unsigned n);

#endif
