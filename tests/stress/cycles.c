/*
 * cycles.c -- watchers are opened and closed, over and over, in a process with many threads of which some
 * write. `cycles SECONDS BACKEND N_THREADS N_CYCLES`: until both so many seconds (10) have gone by and so many
 * cycles (20) are done, on that backend (auto), beside so many threads (100). In the end there are as many
 * descriptors, threads and mappings as after the first cycles, and no more memory. 77 when the backend cannot
 * run here.
 */
#include "stress.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

enum { N_WRITERS = 4, WARM_UP = 5, STACK_BYTES = 64 << 10 };

static uint8_t *memory; /* a page for each writer */
static _Atomic bool stop;
static pthread_barrier_t all_run;

static void *write_or_rest(void *arg)
{
	uintptr_t place = (uintptr_t)arg;
	pthread_barrier_wait(&all_run);
	for (uint64_t i = 1; !atomic_load(&stop); i++) {
		if (place < N_WRITERS)
			__atomic_store_n((uint64_t *)(void *)(memory + place * PAGE), i, __ATOMIC_RELAXED);
		usleep(place < N_WRITERS ? 1000 : 100000);
	}
	return NULL;
}

static void cycle(const char *backend)
{
	struct memwatch_options options;
	uint64_t id;
	memwatch_options_init(&options);
	options.backend = backend;
	memwatch *watcher = open_watcher(&options);
	CHECK(memwatch_region_add(watcher, memory, N_WRITERS * PAGE, NULL, &id) == 0);
	CHECK(memwatch_events_wait(watcher, 0, 60000) == 1); /* a writer was seen */
	memwatch_close(watcher);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 10, end = now_s() + seconds;
	const char *backend = argc > 2 ? argv[2] : "auto";
	size_t n_threads = argc > 3 ? strtoul(argv[3], NULL, 0) : 100;
	size_t n_cycles = argc > 4 ? strtoul(argv[4], NULL, 0) : 20;
	pthread_t *threads = calloc(n_threads, sizeof *threads);
	pthread_attr_t attributes;
	struct held first = { 0 };
	memory = mmap(NULL, N_WRITERS * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(threads && memory != MAP_FAILED && n_threads >= N_WRITERS);
	pthread_barrier_init(&all_run, NULL, (unsigned)n_threads + 1);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	for (uintptr_t i = 0; i < n_threads; i++)
		CHECK(pthread_create(&threads[i], &attributes, write_or_rest, (void *)i) == 0);
	pthread_barrier_wait(&all_run);
	size_t done = 0;
	for (; done < n_cycles || now_s() < end; done++) {
		cycle(backend);
		if (done == WARM_UP)
			first = held_now();
	}
	struct held last = held_now();
	printf("%zu cycles\n", done);
	check_held(&first, &last, SPARE_KIB);
	atomic_store(&stop, true);
	for (size_t i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	free(threads);
	return 0;
}
