/*
 * hostile.h -- a table of what hosts do, times the backends. Each cell is a TEST, in a process of its own:
 *
 *   BEHAVIOUR(closes_all_descriptors) { ... backend ... }     auto, uffd, mprotect and poll
 *   BEHAVIOUR_OF(auto, blocks_every_signal) { ... }           one of them
 *
 * A cell ends well when the host goes on as if nobody watched, and what it wrote is told in the end.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "../native/watching.h"

#include <grp.h>
#include <sys/prctl.h>

#define BEHAVIOUR(name)                                                                                                \
	static void name(const char *backend);                                                                         \
	TEST(name##_auto)                                                                                              \
	{                                                                                                              \
		name("auto");                                                                                          \
	}                                                                                                              \
	TEST(name##_uffd)                                                                                              \
	{                                                                                                              \
		name("uffd");                                                                                          \
	}                                                                                                              \
	TEST(name##_mprotect)                                                                                          \
	{                                                                                                              \
		name("mprotect");                                                                                      \
	}                                                                                                              \
	TEST(name##_poll)                                                                                              \
	{                                                                                                              \
		name("poll");                                                                                          \
	}                                                                                                              \
	static void name(const char *backend)

#define BEHAVIOUR_OF(backend_name, name)                                                                               \
	static void name##_of_##backend_name(const char *backend);                                                     \
	TEST(name##_##backend_name)                                                                                    \
	{                                                                                                              \
		name##_of_##backend_name(#backend_name);                                                               \
	}                                                                                                              \
	static void name##_of_##backend_name(const char *backend)

/* The memory's last value is told: nothing that was written is lost. */
static inline void check_converged(memwatch *watcher, uint64_t region_id, const uint8_t *memory)
{
	const struct memwatch_event *event = last_event(watcher, region_id);
	CHECK(event);
	CHECK_EQ(((const uint8_t *)event->new_preview)[0], memory[0]);
	memwatch_event_unref(event);
}

/*
 * From now on the process is an unprivileged one that may read its own files in /proc; without BPF then. Where it was
 * none before.
 */
static inline void become_nobody(void)
{
	enum { NOBODY = 65534 };
	if (geteuid() != 0)
		return;
	CHECK(setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
	      setresuid(NOBODY, NOBODY, NOBODY) == 0);
	CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
}

#endif
