/*
 * own.c -- DESIGN: a mark on the thread itself, which handlers read; it is set by the thread and goes with it.
 */
#include "own.h"

#include <memwatch/reader.h>

#include <sys/auxv.h>
#include <sys/syscall.h>

/* initial-exec: a handler's first touch must not allocate. */
static _Thread_local bool is_own __attribute__((tls_model("initial-exec")));

void memwatch_thread_own(void)
{
	is_own = true;
}

bool own_thread(void)
{
	return is_own;
}

#if defined(__x86_64__)

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE (1 << 1)
#endif
#define GET_FS 0x1003 /* arch_prctl(2) */

static _Atomic bool reads_by_instruction; /* the kernel allows it, since Linux 5.9 */

void own_prepare(void)
{
	reads_by_instruction = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
}

static const uint64_t *thread_pointer(void)
{
	const uint64_t *pointer = NULL;
	if (reads_by_instruction) {
		__asm__ volatile("rdfsbase %0" : "=r"(pointer));
	} else {
		long result = SYS_arch_prctl;
		__asm__ volatile("syscall" : "+a"(result) : "D"(GET_FS), "S"(&pointer) : "rcx", "r11", "memory");
	}
	return pointer;
}

/* What the C library keeps begins with its own address, as the processor's ABI demands. */
bool own_has_storage(void)
{
	const uint64_t *pointer = thread_pointer();
	return pointer && *pointer == (uintptr_t)pointer;
}

#elif defined(__aarch64__)

void own_prepare(void)
{
}

bool own_has_storage(void)
{
	uint64_t pointer;
	__asm__ volatile("mrs %0, tpidr_el0" : "=r"(pointer));
	return pointer != 0;
}

#else

void own_prepare(void)
{
}

bool own_has_storage(void)
{
	return true;
}

#endif
