/*
 * cpython.c -- DESIGN: whether the interpreter that runs is laid out as the headers said that this was compiled with. A
 * release that only mends bugs has moved members of the interpreter's structs before. From 3.13 on the interpreter
 * carries a table of where they are, for debuggers: what frames are read by is compared with it once, at import. Where
 * anything differs no frame is looked into: there are no Python lines then, and never wrong ones.
 *
 * Runs under the GIL, at import. Owns the answer, which is written once and read by everybody, in handlers too.
 */
#include "cpython.h"

#if defined(CPYTHON_FRAMES_KNOWN) && CPYTHON_AT_LEAST(13)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <internal/pycore_runtime.h>
#pragma GCC diagnostic pop
#endif

#include <stdio.h>
#include <string.h>

bool cpython_layout_is_known;
char cpython_layout_note[256];

#if defined(CPYTHON_FRAMES_KNOWN) && CPYTHON_AT_LEAST(13)

struct place {
	const char *member;
	uint64_t ours, theirs;
};

/* The member that lies elsewhere; NULL for none. */
static const char *moved_member(const struct _Py_DebugOffsets *theirs)
{
	const struct place places[] = {
		{ "PyThreadState", sizeof(PyThreadState), theirs->thread_state.size },
		{ "PyThreadState.current_frame", offsetof(PyThreadState, current_frame),
		  theirs->thread_state.current_frame },
		{ "PyThreadState.datastack_chunk", offsetof(PyThreadState, datastack_chunk),
		  theirs->thread_state.datastack_chunk },
		{ "_PyInterpreterFrame", sizeof(interpreter_frame), theirs->interpreter_frame.size },
		{ "_PyInterpreterFrame.previous", offsetof(interpreter_frame, previous),
		  theirs->interpreter_frame.previous },
		{ "_PyInterpreterFrame.f_executable", offsetof(interpreter_frame, f_executable),
		  theirs->interpreter_frame.executable },
		{ "_PyInterpreterFrame.instr_ptr", offsetof(interpreter_frame, instr_ptr),
		  theirs->interpreter_frame.instr_ptr },
		{ "_PyInterpreterFrame.localsplus", offsetof(interpreter_frame, localsplus),
		  theirs->interpreter_frame.localsplus },
		{ "_PyInterpreterFrame.owner", offsetof(interpreter_frame, owner), theirs->interpreter_frame.owner },
		{ "PyCodeObject", sizeof(PyCodeObject), theirs->code_object.size },
		{ "PyCodeObject.co_filename", offsetof(PyCodeObject, co_filename), theirs->code_object.filename },
		{ "PyCodeObject.co_qualname", offsetof(PyCodeObject, co_qualname), theirs->code_object.qualname },
		{ "PyCodeObject.co_linetable", offsetof(PyCodeObject, co_linetable), theirs->code_object.linetable },
		{ "PyCodeObject.co_code_adaptive", offsetof(PyCodeObject, co_code_adaptive),
		  theirs->code_object.co_code_adaptive },
#if CPYTHON_AT_LEAST(14)
		{ "PyGenObject.gi_iframe", offsetof(PyGenObject, gi_iframe), theirs->gen_object.gi_iframe },
		{ "PyGenObject.gi_frame_state", offsetof(PyGenObject, gi_frame_state),
		  theirs->gen_object.gi_frame_state },
#endif
	};
	for (size_t i = 0; i < sizeof places / sizeof *places; i++)
		if (places[i].ours != places[i].theirs)
			return places[i].member;
	return NULL;
}

/* Each minor version has a table of its own, which final releases keep. */
static bool has_same_table(uint64_t version)
{
	enum { MINOR = 0xffff0000u, LEVEL = 0xf0, FINAL = 0xf0 };
	bool both_final = (version & LEVEL) == FINAL && (PY_VERSION_HEX & LEVEL) == FINAL;
	return version == PY_VERSION_HEX || (both_final && (version & MINOR) == (PY_VERSION_HEX & MINOR));
}

static const char *layout_difference(void)
{
#ifdef Py_GIL_DISABLED
	const uint64_t free_threaded = 1;
#else
	const uint64_t free_threaded = 0;
#endif
	const struct _Py_DebugOffsets *theirs = &_PyRuntime.debug_offsets;
	if (memcmp(theirs->cookie, "xdebugpy", sizeof theirs->cookie) != 0)
		return "its table of offsets";
	if (!has_same_table(theirs->version) || theirs->free_threaded != free_threaded)
		return "its version or kind";
	return moved_member(theirs);
}

#elif defined(CPYTHON_FRAMES_KNOWN)

/* 3.11 and 3.12 have no table; the versions themselves get no changes any more. */
static const char *layout_difference(void)
{
	return NULL;
}

#endif

bool cpython_layout_check(void)
{
#ifdef CPYTHON_FRAMES_KNOWN
	const char *difference = layout_difference();
	cpython_layout_is_known = !difference;
	if (difference)
		snprintf(cpython_layout_note, sizeof cpython_layout_note,
			 "built for Python %s, and Python %.20s differs in %s: build memwatch again with it",
			 PY_VERSION, Py_GetVersion(), difference);
#else
	snprintf(cpython_layout_note, sizeof cpython_layout_note,
		 "the frames of Python %s are not known to this version of memwatch: use CPython 3.11 to 3.15",
		 PY_VERSION);
#endif
	return cpython_layout_is_known;
}
