/*
 * test_sandbox.c -- what hosts give up while they are watched: address space, system calls, files, the root directory.
 * They do it for security, and go on writing.
 */
#include "../native/filters.h"
#include "hostile.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/resource.h>

enum { N_PAGES = 64 };

static memwatch *watch_pages(const char *backend, uint8_t **ret_memory, uint64_t *ret_id)
{
	SKIP_UNDER(UNDER_ASAN || UNDER_TSAN); /* their run-time needs what the host gives up */
	memwatch *watcher = open_backend(backend);
	*ret_memory = map_pages(N_PAGES);
	*ret_id = add_region(watcher, *ret_memory, (size_t)N_PAGES * PAGE, "pages");
	poke(*ret_memory, 1);
	flush(watcher);
	return watcher;
}

static void write_pages(uint8_t *memory, uint8_t value)
{
	for (unsigned i = 0; i < N_PAGES; i++)
		poke(memory + i * PAGE, value);
}

/* The last value is told; or it is known and counted as dropped, where there is no memory for an event. */
static void check_known(memwatch *watcher, uint64_t id, const uint8_t *memory)
{
	uint8_t known;
	if (!stats_of(watcher).dropped_by[MEMWATCH_DROP_NO_MEMORY]) {
		check_converged(watcher, id, memory);
		return;
	}
	flush(watcher);
	CHECK_EQ(memwatch_region_read(watcher, id, &known, 1), 1);
	CHECK_EQ(known, memory[0]);
}

/* What was watched before goes on; what comes now is watched, or refused with a sentence. */
static void go_on(memwatch *watcher, uint8_t *memory, uint64_t id)
{
	static uint8_t later[4 * PAGE] __attribute__((aligned(PAGE)));
	uint64_t later_id;
	for (uint8_t value = 2; value < 20; value++) {
		write_pages(memory, value);
		flush(watcher);
	}
	check_known(watcher, id, memory);
	if (memwatch_region_add(watcher, later, sizeof later, NULL, &later_id) == 0) {
		poke(later, 7);
		check_known(watcher, later_id, later);
		OK(memwatch_region_remove(watcher, later_id));
	} else {
		CHECK(strlen(memwatch_error()) > 10);
	}
	check_ledgers(watcher);
	memwatch_close(watcher);
}

/* --- less memory -------------------------------------------------------------------------------------------------- */

static void limit_to_what_is_used(__rlimit_resource_t resource, const char *field)
{
	enum { MORE = 256 << 10 };
	char line[256];
	unsigned long kib = 0;
	FILE *status = fopen("/proc/self/status", "re");
	CHECK(status);
	while (fgets(line, sizeof line, status))
		if (strncmp(line, field, strlen(field)) == 0)
			kib = strtoul(line + strlen(field), NULL, 10);
	fclose(status);
	CHECK(kib > 0);
	rlim_t limit = (rlim_t)kib * 1024 + MORE;
	CHECK(setrlimit(resource, &(struct rlimit){ limit, limit }) == 0);
}

BEHAVIOUR(limits_its_address_space)
{
	uint8_t *memory;
	uint64_t id;
	memwatch *watcher = watch_pages(backend, &memory, &id);
	limit_to_what_is_used(RLIMIT_AS, "VmSize:");
	go_on(watcher, memory, id);
}

static void limit_data(const char *backend)
{
	uint8_t *memory;
	uint64_t id;
	memwatch *watcher = watch_pages(backend, &memory, &id);
	limit_to_what_is_used(RLIMIT_DATA, "VmData:");
	go_on(watcher, memory, id);
}

/* Not mprotect: where its pages may not become data again, a write ends the host, which docs/limits.md says. */
BEHAVIOUR_OF(auto, limits_its_data)
{
	limit_data(backend);
}

BEHAVIOUR_OF(poll, limits_its_data)
{
	limit_data(backend);
}

/* It may open or not. */
BEHAVIOUR(opens_with_no_address_space_left)
{
	SKIP_UNDER(UNDER_ASAN || UNDER_TSAN);
	struct memwatch_options options;
	uint8_t *memory = map_pages(N_PAGES);
	memwatch *watcher;
	uint64_t id;
	memwatch_options_init(&options);
	options.backend = backend;
	limit_to_what_is_used(RLIMIT_AS, "VmSize:");
	if (memwatch_open(&options, &watcher) < 0) {
		CHECK(strlen(memwatch_error()) > 10);
		return;
	}
	if (memwatch_region_add(watcher, memory, (size_t)N_PAGES * PAGE, NULL, &id) == 0)
		go_on(watcher, memory, id);
	else
		memwatch_close(watcher);
}

/* --- fewer system calls ----------------------------------------------------------------------------------------- */

/* All that the library may ask of the kernel while it runs, but for mprotect(2): see docs/limits.md. */
static const int refused[] = { SYS_userfaultfd,
			       SYS_perf_event_open,
			       SYS_bpf,
			       SYS_process_vm_readv,
			       SYS_process_vm_writev,
			       SYS_mincore,
			       SYS_msync,
			       SYS_sched_setscheduler,
			       SYS_sched_setattr,
			       SYS_openat,
			       SYS_open,
			       SYS_ptrace,
			       SYS_memfd_create,
			       SYS_pidfd_open,
			       SYS_setpriority,
			       SYS_clone3,
			       SYS_socket };

static void enter_filter(const char *backend, uint32_t answer)
{
	uint8_t *memory;
	uint64_t id;
	memwatch *watcher = watch_pages(backend, &memory, &id);
	FILTER_ALL(refused, answer);
	go_on(watcher, memory, id);
}

BEHAVIOUR(enters_a_filter_that_answers_eperm)
{
	enter_filter(backend, SECCOMP_RET_ERRNO | EPERM);
}

BEHAVIOUR(enters_a_filter_that_answers_enosys)
{
	enter_filter(backend, SECCOMP_RET_ERRNO | ENOSYS);
}

BEHAVIOUR(enters_a_filter_for_ioctl)
{
	static const int ioctls[] = { SYS_ioctl };
	uint8_t *memory;
	uint64_t id;
	memwatch *watcher = watch_pages(backend, &memory, &id);
	FILTER_ALL(ioctls, SECCOMP_RET_ERRNO | EPERM);
	go_on(watcher, memory, id);
}

/* --- no files ----------------------------------------------------------------------------------------------------- */

BEHAVIOUR(enters_landlock)
{
	uint8_t *memory;
	uint64_t id;
	memwatch *watcher = watch_pages(backend, &memory, &id);
	struct landlock_ruleset_attr all = { .handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1 };
	int rules = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0);
	if (rules < 0)
		SKIP("no landlock in this kernel");
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(syscall(SYS_landlock_restrict_self, rules, 0) == 0);
	close(rules);
	CHECK(open("/proc/self/maps", O_RDONLY | O_CLOEXEC) < 0);
	go_on(watcher, memory, id);
}

static void leave_root(void)
{
	char empty[] = "/tmp/memwatch-root-XXXXXX";
	if (geteuid() != 0)
		SKIP("chroot(2) needs privilege");
	CHECK(mkdtemp(empty) && chroot(empty) == 0 && chdir("/") == 0 && rmdir("/") != 0);
}

BEHAVIOUR(enters_a_chroot)
{
	uint8_t *memory;
	uint64_t id;
	memwatch *watcher = watch_pages(backend, &memory, &id);
	leave_root();
	go_on(watcher, memory, id);
}

/* There is no /proc: the watcher says what it lacks, or does without. */
BEHAVIOUR(opens_in_a_chroot)
{
	uint8_t *memory;
	uint64_t id;
	leave_root();
	memwatch *watcher = watch_pages(backend, &memory, &id);
	go_on(watcher, memory, id);
}
