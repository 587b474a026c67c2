/*
 * frames_running.h -- the frame of a thread that runs. Included by frames.c alone, after memo.h and cpython.h. Three
 * questions, each answered without following a pointer that may not be one:
 *   frame_running      the innermost frame of a thread's state, NULL when it runs none or when that cannot be told now
 *   frame_code         its code object; NULL for what has no line: an entry frame of the interpreter, a frame whose
 *                      first instruction has not run yet (its function's arguments are still being bound)
 *   frame_instruction  the index of the instruction that it executes; -1 when its bytecode cannot be told
 *
 * frame_running believes nothing. While the interpreter enters a function from C, 3.11 and 3.12 publish a record on the
 * C stack (the cframe) some instructions before they fill it in: what is there is whatever the stack held. A store in
 * between, into the thread's state or a generator's frame, may be the fault that we are asked about. So the innermost
 * frame must lie where frames live, be of a generator that runs or below the top of the thread's own stack of frames,
 * and have code that is alive and that its instruction lies in. The frames below such a one were entered before, and
 * are complete.
 */
#ifndef MEMWATCH_FRAMES_RUNNING_H
#define MEMWATCH_FRAMES_RUNNING_H

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- a frame that is known to be one --- */

static inline bool is_aligned(const void *pointer)
{
	return pointer && ((uintptr_t)pointer & (sizeof(void *) - 1)) == 0;
}

static inline PyCodeObject *code_or_null(void *object)
{
	return is_aligned(object) && Py_TYPE((PyObject *)object) == &PyCode_Type ? object : NULL;
}

static inline PyCodeObject *frame_code(interpreter_frame *frame)
{
	PyCodeObject *code = cpython_frame_is_entry(frame) ? NULL : code_or_null(cpython_frame_executable(frame));
	return code && !_PyFrame_IsIncomplete(frame) ? code : NULL;
}

static inline int frame_instruction(const interpreter_frame *frame, PyCodeObject *code)
{
	const _Py_CODEUNIT *bytecode = cpython_frame_bytecode(frame, code);
	return bytecode ? (int)(cpython_frame_pointer(frame) - bytecode) : -1;
}

/* --- a frame that may be none --- */

/*
 * Whether the word at an address can be read. The kernel reads it as a set of signals before it refuses to do with it
 * what there is no number for, so nothing changes; about 0.1 us.
 */
static inline bool is_readable(const void *word)
{
	enum { NO_SUCH_CHANGE = -1, SET_BYTES = 8 };
	return is_aligned(word) &&
	       (syscall(SYS_rt_sigprocmask, NO_SUCH_CHANGE, word, NULL, SET_BYTES) == 0 || errno != EFAULT);
}

/* The same for a word near one that can be. */
static inline bool is_readable_too(const void *word, const void *known)
{
	enum { PAGE_MASK = 4095 };
	return ((uintptr_t)word & ~(uintptr_t)PAGE_MASK) == ((uintptr_t)known & ~(uintptr_t)PAGE_MASK) ||
	       is_readable(word);
}

static inline struct memo_key code_key(const void *code)
{
	uint64_t address = (uint64_t)(uintptr_t)code;
	return (struct memo_key){ address >> 4 | address << 60, UINT64_MAX };
}

/*
 * Whether the code need not be asked for: it was found alive before, and the frame ends where a frame of it would and
 * where the thread's stack of frames does. So it is the frame that was pushed last, and holds a reference to its code.
 */
static inline bool is_pushed_last(const PyThreadState *state, const interpreter_frame *frame)
{
	struct memo_key key = code_key(cpython_frame_executable(frame));
	uint32_t n_words = memo_find(&key);
	return n_words && (PyObject *const *)frame + n_words == (PyObject *const *)state->datastack_top;
}

static inline bool has_live_code(const PyThreadState *state, const interpreter_frame *frame)
{
	void *object = cpython_frame_executable(frame);
	bool known = is_pushed_last(state, frame);
	PyCodeObject *code = known || is_readable(object) ? code_or_null(object) : NULL;
	if (!code || !cpython_object_may_be_alive(object))
		return false;
	const _Py_CODEUNIT *bytecode = cpython_frame_bytecode(frame, code);
	Py_ssize_t at = bytecode ? cpython_frame_pointer(frame) - bytecode : -1;
	if (!bytecode || at < -1 || at >= Py_SIZE(code))
		return false;
	struct memo_key key = code_key(code);
	if (!known)
		memo_keep(&key, cpython_code_frame_words(code));
	return true;
}

/* Whether a frame's owner says that it is running: a generator, which it lies in. */
static inline bool is_of_running_generator(interpreter_frame *frame)
{
	PyGenObject *owner = (PyGenObject *)((char *)frame - offsetof(PyGenObject, gi_iframe));
	if (!is_readable_too((char *)frame - sizeof(void *), frame) || !is_readable_too(owner, frame))
		return false;
	PyTypeObject *type = Py_TYPE((PyObject *)owner);
	return (type == &PyGen_Type || type == &PyCoro_Type || type == &PyAsyncGen_Type) &&
	       cpython_object_may_be_alive((PyObject *)owner) && owner->gi_frame_state == FRAME_EXECUTING;
}

enum place { NOWHERE, ELSEWHERE, ON_FRAME_STACK };

/* Where a frame lies: in the used part of this thread's stack of frames, above it, or in other memory. */
static inline enum place frame_place(const PyThreadState *state, const interpreter_frame *frame)
{
	uint64_t start = (uint64_t)(uintptr_t)frame, end = (uint64_t)(uintptr_t)frame->localsplus;
	uint64_t top = (uint64_t)(uintptr_t)state->datastack_top;
	for (const _PyStackChunk *chunk = state->datastack_chunk; chunk; chunk = chunk->previous) {
		uint64_t first = (uint64_t)(uintptr_t)chunk->data, limit = (uint64_t)(uintptr_t)chunk + chunk->size;
		if (start < limit && end > first)
			return start >= first && end <= top && top <= limit ? ON_FRAME_STACK : NOWHERE;
		if (chunk->previous)
			top = (uint64_t)(uintptr_t)&chunk->previous->data[chunk->previous->top];
	}
	return ELSEWHERE;
}

static inline interpreter_frame *frame_running(PyThreadState *state)
{
	enum { ENTRIES = 4 };
	interpreter_frame *frame = cpython_frame_claimed(state);
	/* An entry frame is innermost for some instructions only, so that a longer row of them is none. */
	for (unsigned entries = 0; frame && entries < ENTRIES; entries++, frame = frame->previous) {
		enum place place = is_aligned(frame) ? frame_place(state, frame) : NOWHERE;
		if (place == NOWHERE)
			return NULL;
		if (place == ELSEWHERE && (!is_readable(frame) || !is_readable_too(&frame->localsplus, frame)))
			return NULL;
		if (place == ELSEWHERE && cpython_frame_is_entry(frame))
			continue;
		bool owned = place == ON_FRAME_STACK
				     ? frame->owner == FRAME_OWNED_BY_THREAD
				     : frame->owner == FRAME_OWNED_BY_GENERATOR && is_of_running_generator(frame);
		return owned && has_live_code(state, frame) ? frame : NULL;
	}
	return NULL;
}

#endif
