/*
 * unwind.c -- DESIGN: libdw follows the unwind tables of the objects, and frame pointers where there are none. It takes
 * the stack for that of a process with one thread, whose registers and memory are those that were taken: of the live
 * process it reads nothing.
 *
 * What is lost: callers beyond the bytes that were taken, and beyond code of which nothing is known.
 */
#include "unwind.h"

#include <string.h>

enum { THE_THREAD = 1 };

static const struct stack *stack; /* that is read now */

static pid_t next_thread(Dwfl *dwfl, void *arg, void **thread)
{
	(void)dwfl, (void)arg;
	if (*thread)
		return 0;
	*thread = &stack;
	return THE_THREAD;
}

static bool read_word(Dwfl *dwfl, Dwarf_Addr address, Dwarf_Word *ret_word, void *arg)
{
	(void)dwfl, (void)arg;
	uint64_t at = address - stack->start;
	if (stack->n_bytes < sizeof *ret_word || at > stack->n_bytes - sizeof *ret_word)
		return false;
	memcpy(ret_word, stack->bytes + at, sizeof *ret_word);
	return true;
}

static bool set_registers(Dwfl_Thread *thread, void *arg)
{
	(void)arg;
	dwfl_thread_state_register_pc(thread, stack->ip);
	return dwfl_thread_state_registers(thread, 0, STACK_REGISTERS, stack->registers);
}

bool unwind_begin(Dwfl *dwfl)
{
	static const Dwfl_Thread_Callbacks callbacks = { .next_thread = next_thread,
							 .memory_read = read_word,
							 .set_initial_registers = set_registers };
	return dwfl_attach_state(dwfl, NULL, THE_THREAD, &callbacks, NULL);
}

static int take_frame(Dwfl_Frame *frame, void *arg)
{
	struct walk *walk = arg;
	Dwarf_Addr ip;
	bool is_interrupted; /* the address is an instruction's, not one to return to */
	if (!dwfl_frame_pc(frame, &ip, NULL))
		return DWARF_CB_ABORT;
	bool known = walk->can_unwind(dwfl_thread_dwfl(dwfl_frame_thread(frame)), ip - (walk->n != 0));
	if (!known && walk->n) /* no code, as far as can be told */
		return DWARF_CB_ABORT;
	/* Not before: this is when libdw unwinds the frame. */
	if (!dwfl_frame_pc(frame, &ip, &is_interrupted))
		return DWARF_CB_ABORT;
	ip -= !is_interrupted;
	walk->ips[walk->n++] = ip;
	if (walk->n_outside || !stack_in_libc(ip))
		walk->n_outside++;
	return known && walk->n < walk->max && walk->n_outside < walk->depth ? DWARF_CB_OK : DWARF_CB_ABORT;
}

void unwind(Dwfl *dwfl, struct walk *walk)
{
	stack = walk->stack;
	dwfl_getthread_frames(dwfl, THE_THREAD, take_frame, walk);
}
