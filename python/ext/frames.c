/*
 * frames.c -- DESIGN: the frame hook: which Python line is about to write. Runs in signal context on the writer's
 * thread, between any two instructions of the interpreter, perhaps without the GIL. So it reads only this thread's own
 * state (which nobody else changes while the thread stands in a handler), takes no references, allocates nothing, locks
 * nothing, and looks at every pointer before it follows it. Strings are copied by memwatch_location_intern. It owns
 * nothing.
 *
 * PyGILState_GetThisThreadState is pthread_getspecific on a key that exists while the interpreter does; it never
 * allocates. A thread that the interpreter has never seen has no state there: no frames, and `where` is native only. A
 * thread whose state belongs to a sub-interpreter alone is such a thread too.
 *
 * On loss (table full, unknown kind of frame) the answer is 0, counted by the table.
 */
#include "cpython.h"
#include "memo.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { FILE_BYTES = 512, FUNCTION_BYTES = 256, PATH_BYTES = 1024, WALK_MAX = 256 };

struct path {
	char bytes[PATH_BYTES];
	size_t n;
};

/* Written once, before the first watcher, by frames_own_set; read by the hook. */
static struct path package_dir, threading_file;

static void path_set(struct path *path, const char *bytes, Py_ssize_t n)
{
	if (n >= PATH_BYTES)
		return;
	memcpy(path->bytes, bytes, (size_t)n);
	path->n = (size_t)n;
}

PyObject *frames_own_set(PyObject *Py_UNUSED(module), PyObject *args)
{
	const char *dir, *file;
	Py_ssize_t dir_bytes, file_bytes;
	if (!PyArg_ParseTuple(args, "s#s#:own_set", &dir, &dir_bytes, &file, &file_bytes))
		return NULL;
	path_set(&package_dir, dir, dir_bytes);
	path_set(&threading_file, file, file_bytes);
	Py_RETURN_NONE;
}

#ifdef CPYTHON_FRAMES_KNOWN

#include "frames_running.h"

struct text {
	const char *bytes;
	size_t n;
};

/*
 * Encodes one code point; what is no character (a lone surrogate in a file name) becomes U+FFFD. Returns how many
 * bytes.
 */
static size_t encode(Py_UCS4 c, char *out)
{
	if (c >= 0xd800 && c < 0xe000)
		c = 0xfffd;
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

static bool is_text(PyObject *object)
{
	return object && PyUnicode_Check(object) && PyUnicode_IS_COMPACT(object);
}

/*
 * A str's bytes in UTF-8: in place when it is ASCII, else encoded into `buffer`. Of a long one the end when `keep_end`,
 * else the beginning.
 */
static struct text text_of(PyObject *object, char *buffer, size_t capacity, bool keep_end)
{
	if (!is_text(object))
		return (struct text){ "", 0 };
	Py_ssize_t length = PyUnicode_GET_LENGTH(object), room = (Py_ssize_t)(capacity / 4), i = 0;
	if (PyUnicode_IS_ASCII(object))
		return (struct text){ PyUnicode_DATA(object), (size_t)length };
	if (length > room && keep_end)
		i = length - room;
	else if (length > room)
		length = room;
	size_t n = 0;
	for (int kind = PyUnicode_KIND(object); i < length; i++)
		n += encode(PyUnicode_READ(kind, PyUnicode_DATA(object), i), buffer + n);
	return (struct text){ buffer, n };
}

enum owner { USER, MEMWATCH, THREADING };

static enum owner owner_of(const PyCodeObject *code)
{
	char buffer[FILE_BYTES];
	struct text file = text_of(code->co_filename, buffer, sizeof buffer, true);
	if (package_dir.n && file.n > package_dir.n && file.bytes[package_dir.n] == '/' &&
	    memcmp(file.bytes, package_dir.bytes, package_dir.n) == 0)
		return MEMWATCH;
	if (file.n == threading_file.n && memcmp(file.bytes, threading_file.bytes, file.n) == 0)
		return THREADING;
	return USER;
}

/* Whether memwatch itself is at work: in its own code, or in locks of the threading module that it uses. */
static bool is_memwatch_at_work(interpreter_frame *frame)
{
	for (unsigned walked = 0; frame && walked < WALK_MAX; walked++, frame = frame->previous) {
		PyCodeObject *code = frame_code(frame);
		enum owner owner = code ? owner_of(code) : THREADING;
		if (owner != THREADING)
			return owner == MEMWATCH;
	}
	return false;
}

/* Collects up to `depth` complete frames of the running stack, innermost first, without memwatch's own. */
static unsigned collect(interpreter_frame *frame, interpreter_frame **frames, unsigned depth)
{
	unsigned n = 0;
	for (unsigned walked = 0; frame && n < depth && walked < WALK_MAX; walked++, frame = frame->previous) {
		PyCodeObject *code = frame_code(frame);
		if (code && owner_of(code) != MEMWATCH)
			frames[n++] = frame;
	}
	return n;
}

static uint32_t intern_frame(PyCodeObject *code, int instruction, uint32_t caller)
{
	char file_buffer[FILE_BYTES], function_buffer[FUNCTION_BYTES];
	struct text file = text_of(code->co_filename, file_buffer, sizeof file_buffer, true);
	struct text function = text_of(code->co_qualname, function_buffer, sizeof function_buffer, false);
	int line = PyCode_Addr2Line(code, instruction * (int)sizeof(_Py_CODEUNIT));
	return memwatch_location_intern(file.bytes, file.n, function.bytes, function.n, line, caller);
}

/* The interpreter's own hash of a str, where it has made one. */
static uint64_t hash_text(PyObject *object)
{
	if (!is_text(object))
		return 0;
	Py_hash_t hash = ((PyASCIIObject *)object)->hash;
	size_t width = (size_t)PyUnicode_KIND(object);
	return hash != -1 ? (uint64_t)hash
			  : XXH3_64bits(PyUnicode_DATA(object), (size_t)PyUnicode_GET_LENGTH(object) * width) + width;
}

static uint64_t stir(uint64_t hash, uint64_t word, uint64_t factor)
{
	hash = (hash ^ word) * factor;
	return hash ^ hash >> 32;
}

/* What a frame's location is made of, as hashes. Addresses are not: those of freed code are used again. */
struct content {
	const PyCodeObject *code;
	uint64_t file, function, lines;
};

/*
 * While a handler looks at a stack nothing on it is freed: what the frame before has in common with this one is the
 * same.
 */
static void content_read(struct content *content, const PyCodeObject *code)
{
	const PyCodeObject *before = content->code;
	PyObject *lines = code->co_linetable;
	if (before == code)
		return;
	if (!before || before->co_filename != code->co_filename)
		content->file = hash_text(code->co_filename);
	content->function = hash_text(code->co_qualname);
	content->lines = lines ? XXH3_64bits(PyBytes_AS_STRING(lines), (size_t)PyBytes_GET_SIZE(lines)) : 0;
	content->code = code;
}

static struct memo_key key_of(const struct content *content, int instruction, uint32_t caller)
{
	const uint64_t words[] = { (uint64_t)(uint32_t)content->code->co_firstlineno << 32 | (uint32_t)instruction,
				   content->file, content->function, content->lines };
	struct memo_key key = { caller, ~(uint64_t)caller };
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		key.low = stir(key.low, words[i], UINT64_C(0x9e3779b97f4a7c15));
		key.high = stir(key.high, words[i], UINT64_C(0xff51afd7ed558ccd));
	}
	return key;
}

/* The memo first: a line is found by decoding the code's table of lines from its beginning. */
static uint32_t locate(struct content *content, interpreter_frame *frame, uint32_t caller)
{
	PyCodeObject *code = frame_code(frame);
	int instruction = frame_instruction(frame, code);
	content_read(content, code);
	struct memo_key key = key_of(content, instruction, caller);
	uint32_t location = memo_find(&key);
	if (location)
		return location;
	location = intern_frame(code, instruction, caller);
	memo_keep(&key, location);
	return location;
}

/* Signal-safe. Outermost first, so that each location knows its caller's number. */
static uint32_t hook(void *Py_UNUSED(ucontext), unsigned depth)
{
	interpreter_frame *frames[MEMWATCH_STACK_MAX];
	PyThreadState *state = PyGILState_GetThisThreadState();
	struct content content = { 0 };
	uint32_t location = 0;
	if (!state)
		return 0;
	interpreter_frame *running = frame_running(state);
	if (is_memwatch_at_work(running))
		return MEMWATCH_LOCATION_OWN;
	unsigned n = collect(running, frames, depth < MEMWATCH_STACK_MAX ? depth : MEMWATCH_STACK_MAX);
	while (n)
		location = locate(&content, frames[--n], location);
	return location;
}

void frames_install(void)
{
	if (!cpython_layout_is_known)
		return;
	memo_open();
	memwatch_frame_hook_set(hook);
}

#else

/* This version's frames are not known: `where` is native only. */
void frames_install(void)
{
}

#endif
