/*
 * test_neighbours.c -- what hosts do with mappings beside a watched one, and with the watched one itself: they move and
 * grow them together, empty them, hang a userfaultfd of their own on them. A call may fail where docs/limits.md says
 * so; nothing is lost by it.
 */
#include "hostile.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>

enum { N_PAGES = 8 };
#define SIZE_BYTES ((size_t)N_PAGES * PAGE)

static bool is(const char *backend, const char *name)
{
	return strcmp(backend, name) == 0;
}

static memwatch *watch_memory(const char *backend, uint8_t *memory, uint64_t *ret_id)
{
	memwatch *watcher = open_backend(backend);
	*ret_id = add_region(watcher, memory, SIZE_BYTES, "memory");
	for (unsigned i = 0; i < N_PAGES; i++)
		poke(memory + i * PAGE, 1);
	flush(watcher);
	return watcher;
}

static void go_on(memwatch *watcher, uint64_t id, uint8_t *memory)
{
	poke(memory, 77);
	check_converged(watcher, id, memory);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

/* The neighbour is mapped after the watch; the kernel would make one mapping of both. */
BEHAVIOUR(moves_two_mappings_as_one)
{
	SKIP_UNDER(UNDER_ASAN || UNDER_TSAN);
	uint64_t id;
	uint8_t *memory = map_pages(2 * N_PAGES);
	CHECK(mprotect(memory + SIZE_BYTES, SIZE_BYTES, PROT_NONE) == 0); /* keeps the place free */
	memwatch *watcher = watch_memory(backend, memory, &id);
	CHECK(mmap(memory + SIZE_BYTES, SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == memory + SIZE_BYTES);
	memory[SIZE_BYTES] = 1;
	uint8_t *moved = mremap(memory, 2 * SIZE_BYTES, 4 * SIZE_BYTES, MREMAP_MAYMOVE);
	if (moved == MAP_FAILED) {
		CHECK(errno == EFAULT && !is(backend, "poll"));
		go_on(watcher, id, memory);
		return;
	}
	CHECK(moved[0] == 1 && moved[SIZE_BYTES] == 1);
	if (moved != memory && !is(backend, "mprotect"))
		WAIT_FOR(has_lost(watcher, id));
	memwatch_close(watcher);
}

static int open_userfaultfd(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	struct uffdio_api api = { .api = UFFD_API };
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		SKIP("no userfaultfd here");
	return fd;
}

static int register_own(int fd, const uint8_t *memory)
{
	struct uffdio_register asked = { .range = { (uintptr_t)memory, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	return ioctl(fd, UFFDIO_REGISTER, &asked) < 0 ? -errno : 0;
}

BEHAVIOUR(has_a_userfaultfd_of_its_own_before)
{
	uint64_t id;
	uint8_t *memory = map_pages(N_PAGES + 1);
	int fd = open_userfaultfd();
	memset(memory, 0, SIZE_BYTES + PAGE);
	CHECK(register_own(fd, memory) == 0);
	memwatch *watcher = watch_memory(backend, memory, &id);
	go_on(watcher, id, memory);
}

BEHAVIOUR(has_a_userfaultfd_of_its_own_later)
{
	uint64_t id;
	uint8_t *memory = map_pages(N_PAGES + 1);
	memwatch *watcher = watch_memory(backend, memory, &id);
	int error = register_own(open_userfaultfd(), memory + SIZE_BYTES);
	CHECK(error == 0 || (error == -EBUSY && !is(backend, "poll")));
	go_on(watcher, id, memory);
}

/* --- emptied ------------------------------------------------------------------------------------------------------ */

static bool is_told_as_zero(memwatch *watcher, uint64_t id)
{
	const struct memwatch_event *event = last_event(watcher, id);
	bool zero = event && ((const uint8_t *)event->new_preview)[0] == 0;
	if (event)
		memwatch_event_unref(event);
	return zero;
}

/* mprotect hears of it with the next write only. */
static void empty(const char *backend, uint8_t *memory, int advice)
{
	uint64_t id;
	memwatch *watcher = watch_memory(backend, memory, &id);
	CHECK(madvise(memory, SIZE_BYTES, advice) == 0);
	CHECK_EQ(memory[0], 0);
	if (!is(backend, "mprotect"))
		WAIT_FOR(is_told_as_zero(watcher, id));
	go_on(watcher, id, memory);
}

BEHAVIOUR(empties_its_memory)
{
	empty(backend, map_pages(N_PAGES), MADV_DONTNEED);
}

BEHAVIOUR(empties_its_shared_memory)
{
	uint8_t *memory = mmap(NULL, SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	empty(backend, memory, MADV_REMOVE);
}

BEHAVIOUR(detaches_system_v_memory)
{
	SKIP_UNDER(UNDER_ASAN || UNDER_TSAN);
	uint64_t id;
	int segment = shmget(IPC_PRIVATE, SIZE_BYTES, IPC_CREAT | 0600);
	if (segment < 0)
		SKIP("no System V shared memory here");
	uint8_t *memory = shmat(segment, NULL, 0);
	CHECK(shmctl(segment, IPC_RMID, NULL) == 0);
	memwatch *watcher = watch_memory(backend, memory, &id);
	poke(memory, 2);
	CHECK(shmdt(memory) == 0);
	WAIT_FOR(has_lost(watcher, id));
	memwatch_close(watcher);
}
