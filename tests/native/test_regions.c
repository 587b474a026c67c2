/*
 * test_regions.c -- regions: what is refused, what is reported, overlap, shared pages, every size, very many, removal.
 */
#include "watching.h"

#include <pthread.h>

/* --- what is refused -------------------------------------------------------------------------------------------- */

static int try_add(memwatch *watcher, void *address, size_t size_bytes, const char *name)
{
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	options.name = name;
	return memwatch_region_add(watcher, address, size_bytes, &options, NULL);
}

TEST(bad_regions_are_refused_and_leave_nothing)
{
	uint8_t *memory = map_pages(4);
	char name[MEMWATCH_NAME_MAX + 2];
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	memset(name, 'n', sizeof name);
	name[sizeof name - 1] = '\0';
	munmap(memory + 2 * PAGE, 2 * PAGE);
	OK(try_add(watcher, memory, 10, "a"));
	FAILS(try_add(watcher, memory, 0, "b"), EINVAL);
	FAILS(try_add(watcher, (void *)((uintptr_t)1 << 47), 10, "b"), EINVAL);
	FAILS(try_add(watcher, memory, SIZE_MAX, "b"), EINVAL);
	FAILS(try_add(watcher, memory, SIZE_MAX - (uintptr_t)memory + 1, "b"), EINVAL);
	FAILS(try_add(watcher, memory, 10, "a"), EEXIST);
	FAILS(try_add(watcher, memory, 10, name), ENAMETOOLONG);
	FAILS(try_add(watcher, NULL, 10, "b"), EINVAL);
	FAILS(try_add(watcher, memory + 2 * PAGE, 10, "b"), EFAULT);
	FAILS(try_add(watcher, memory + PAGE, 2 * PAGE, "b"), EFAULT);
	name[MEMWATCH_NAME_MAX] = '\0';
	OK(try_add(watcher, memory, 10, name));
	CHECK_EQ(stats_of(watcher).n_regions, 2);
	CHECK_EQ(stats_of(watcher).tracked_bytes, 20);
	memwatch_close(watcher);
}

TEST(unreadable_memory_is_refused)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	mprotect(memory, PAGE, PROT_NONE);
	FAILS(try_add(watcher, memory, 10, "a"), EFAULT);
	memwatch_close(watcher);
}

TEST(bad_shapes_are_refused)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	const size_t shape[] = { 4, 4 };
	options.format = "d";
	options.item_bytes = 8;
	options.n_dims = 2;
	options.shape = shape;
	OK(memwatch_region_add(watcher, memory, 128, &options, NULL));
	FAILS(memwatch_region_add(watcher, memory, 127, &options, NULL), EINVAL);
	options.n_dims = MEMWATCH_DIMS_MAX + 1;
	FAILS(memwatch_region_add(watcher, memory, 128, &options, NULL), EINVAL);
	options.n_dims = 1;
	options.shape = NULL;
	FAILS(memwatch_region_add(watcher, memory, 128, &options, NULL), EINVAL);
	memwatch_close(watcher);
}

TEST(unknown_ids_are_refused)
{
	uint8_t buffer[8];
	struct memwatch_region_info info;
	struct memwatch_summary summary;
	uint64_t id = 5;
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	uint64_t known = add_region(watcher, map_pages(1), 8, "a");
	FAILS(memwatch_region_remove(watcher, known + 1), ENOENT);
	FAILS(memwatch_region_remove(watcher, 0), ENOENT);
	FAILS(memwatch_region_remove(watcher, UINT64_MAX), ENOENT);
	FAILS(memwatch_region_info_get(watcher, known + 1, &info), ENOENT);
	FAILS(memwatch_region_read(watcher, known + 1, buffer, 8), ENOENT);
	FAILS(memwatch_region_summary(watcher, known + 1, &summary), ENOENT);
	FAILS(memwatch_region_find(watcher, "b", &id), ENOENT);
	CHECK_EQ(id, 5);
	OK(memwatch_region_find(watcher, "a", &id));
	CHECK_EQ(id, known);
	OK(memwatch_region_remove(watcher, known));
	FAILS(memwatch_region_remove(watcher, known), ENOENT);
	FAILS(memwatch_region_find(watcher, "a", &id), ENOENT);
	memwatch_close(watcher);
}

TEST(the_id_of_a_removed_region_is_not_used_again)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	uint64_t first = add_region(watcher, memory, 8, "a");
	OK(memwatch_region_remove(watcher, first));
	uint64_t second = add_region(watcher, memory, 8, "a");
	CHECK(first != second);
	FAILS(memwatch_region_remove(watcher, first), ENOENT);
	OK(memwatch_region_remove(watcher, second));
	memwatch_close(watcher);
}

/* --- what is reported ------------------------------------------------------------------------------------------- */

TEST(an_info_tells_what_was_asked_for)
{
	double *matrix = (double *)(void *)map_pages(1);
	const size_t shape[] = { 3, 5 };
	struct memwatch_region_options options;
	uint64_t id;
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	memwatch_region_options_init(&options);
	options.name = "matrix";
	options.format = "d";
	options.item_bytes = 8;
	options.n_dims = 2;
	options.shape = shape;
	options.metric = 1;
	OK(memwatch_region_add(watcher, matrix, 120, &options, &id));
	struct memwatch_region_info info = info_of(watcher, id);
	CHECK_EQ(info.id, id);
	CHECK_TEXT(info.name, "matrix");
	CHECK_EQ(info.address, (uintptr_t)matrix);
	CHECK_EQ(info.size_bytes, 120);
	CHECK_TEXT(info.format, "d");
	CHECK_EQ(info.item_bytes, 8);
	CHECK_EQ(info.n_dims, 2);
	CHECK_EQ(info.shape[0], 3);
	CHECK_EQ(info.shape[1], 5);
	CHECK_EQ(info.metric, 1);
	CHECK_EQ(info.last_seq, 0);
	matrix[7] = 2.5;
	const struct memwatch_event *event = only_event(watcher, 0);
	CHECK_TEXT(event->format, "d");
	CHECK_EQ(event->n_dims, 2);
	CHECK_EQ(event->shape[1], 5);
	info = info_of(watcher, id);
	CHECK_EQ(info.last_seq, 1);
	CHECK_EQ(info.last_time_ns, event->time_ns);
	CHECK_EQ(info.ledger.delivered, 1);
	memwatch_event_unref(event);
	memwatch_close(watcher);
}

static uint64_t add_number(memwatch *watcher, void *address, size_t size_bytes, const char *format)
{
	struct memwatch_region_options options;
	uint64_t id;
	memwatch_region_options_init(&options);
	options.format = format;
	options.item_bytes = size_bytes;
	OK(memwatch_region_add(watcher, address, size_bytes, &options, &id));
	return id;
}

TEST(numbers_are_read_by_their_format)
{
	static struct {
		int8_t b;
		uint8_t B;
		int16_t h;
		uint16_t H;
		int32_t i;
		uint32_t I;
		int64_t q;
		uint64_t Q;
		float f;
		double d;
		_Bool t;
		int32_t pair[2];
		uint32_t single_swapped;
		uint64_t double_swapped;
		long double extended;
	} n = { -1,   255,   -2, 65535,    -3,         4000000000u,         -4,  UINT64_MAX,
		1.5f, -2.25, 1,  { 1, 2 }, 0x0000c03f, 0x00000000000002c0u, 0.75 };
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
#define NUMBER(field, code, kind, member, expected)                                                                    \
	do {                                                                                                           \
		struct memwatch_region_info info =                                                                     \
			info_of(watcher, add_number(watcher, &n.field, sizeof n.field, code));                         \
		CHECK_EQ(info.number, kind);                                                                           \
		CHECK(info.value.member == expected);                                                                  \
	} while (0)
	NUMBER(b, "b", MEMWATCH_NUMBER_INT, as_int, -1);
	NUMBER(B, "B", MEMWATCH_NUMBER_UINT, as_uint, 255);
	NUMBER(h, "h", MEMWATCH_NUMBER_INT, as_int, -2);
	NUMBER(H, "H", MEMWATCH_NUMBER_UINT, as_uint, 65535);
	NUMBER(i, "i", MEMWATCH_NUMBER_INT, as_int, -3);
	NUMBER(I, "I", MEMWATCH_NUMBER_UINT, as_uint, 4000000000u);
	NUMBER(q, "q", MEMWATCH_NUMBER_INT, as_int, -4);
	NUMBER(Q, "Q", MEMWATCH_NUMBER_UINT, as_uint, UINT64_MAX);
	NUMBER(f, "f", MEMWATCH_NUMBER_DOUBLE, as_double, 1.5);
	NUMBER(d, "d", MEMWATCH_NUMBER_DOUBLE, as_double, -2.25);
	NUMBER(i, "<i", MEMWATCH_NUMBER_INT, as_int, -3);
	uint64_t id = add_number(watcher, &n.d, 8, "d");
	n.d = 1e300;
	flush(watcher);
	CHECK(info_of(watcher, id).value.as_double == 1e300);
	CHECK_EQ(info_of(watcher, add_region(watcher, &n.i, 4, "bytes")).number, MEMWATCH_NUMBER_NONE);
	NUMBER(extended, "g", MEMWATCH_NUMBER_DOUBLE, as_double, 0.75);
	NUMBER(h, ">h", MEMWATCH_NUMBER_INT, as_int, (int16_t)0xfeff);
	NUMBER(H, "!H", MEMWATCH_NUMBER_UINT, as_uint, 0xffff);
	NUMBER(I, ">I", MEMWATCH_NUMBER_UINT, as_uint, __builtin_bswap32(4000000000u));
	NUMBER(q, ">q", MEMWATCH_NUMBER_INT, as_int, (int64_t)__builtin_bswap64((uint64_t)-4));
	NUMBER(single_swapped, ">f", MEMWATCH_NUMBER_DOUBLE, as_double, 1.5);
	NUMBER(double_swapped, ">d", MEMWATCH_NUMBER_DOUBLE, as_double, -2.25);
	memwatch_close(watcher);
}

TEST(an_array_is_summed_up)
{
	static double values[6] = { 3, -1, 0, 8, 0, 0 };
	struct memwatch_region_options options;
	struct memwatch_summary summary;
	uint64_t id;
	memwatch *watcher;
	values[4] = __builtin_nan("");
	OK(memwatch_open(NULL, &watcher));
	memwatch_region_options_init(&options);
	options.format = "d";
	options.item_bytes = 8;
	OK(memwatch_region_add(watcher, values, sizeof values, &options, &id));
	OK(memwatch_region_summary(watcher, id, &summary));
	CHECK(summary.min == -1 && summary.max == 8 && summary.mean == 2);
	CHECK_EQ(summary.n_nan, 1);
	CHECK_EQ(summary.n_items, 6);
	id = add_region(watcher, values, 8, "bytes");
	int error = memwatch_region_summary(watcher, id, &summary);
	CHECK(error == -ENOTSUP || summary.n_items == 8);
	memwatch_close(watcher);
}

TEST(policies_hide_values)
{
	uint8_t *memory = map_pages(1), buffer[600];
	const struct memwatch_event *event;
	struct memwatch_region_options options;
	uint64_t ids[4];
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	memwatch_region_options_init(&options);
	for (int values = MEMWATCH_VALUES_FULL; values <= MEMWATCH_VALUES_NONE; values++) {
		options.values = (enum memwatch_values)values;
		OK(memwatch_region_add(watcher, memory + 600 * values, 600, &options, &ids[values]));
		if (values == MEMWATCH_VALUES_FULL)
			CHECK_EQ(memwatch_region_read(watcher, ids[values], buffer, sizeof buffer), 600);
		else
			FAILS(memwatch_region_read(watcher, ids[values], buffer, sizeof buffer), EACCES);
	}
	for (int values = MEMWATCH_VALUES_FULL; values <= MEMWATCH_VALUES_NONE; values++) {
		poke(memory + 600 * values + 3, 9);
		event = only_event(watcher, (uint64_t)values);
		CHECK_EQ(event->values, values);
		CHECK_EQ(event->old_value != NULL, values == MEMWATCH_VALUES_FULL);
		CHECK_EQ(event->new_preview != NULL, values <= MEMWATCH_VALUES_PREVIEW);
		CHECK_EQ(event->new_hash != 0, values == MEMWATCH_VALUES_HASH);
		if (values == MEMWATCH_VALUES_HASH)
			CHECK(event->old_hash != event->new_hash);
		if (values == MEMWATCH_VALUES_PREVIEW)
			CHECK_EQ(event->preview_bytes, 256);
		CHECK_TEXT(event->storage_key_new, "");
		memwatch_event_unref(event);
	}
	memwatch_close(watcher);
}

TEST(the_shadow_can_be_read)
{
	uint8_t *memory = map_pages(3), buffer[3 * PAGE];
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	uint64_t id = add_region(watcher, memory, 3 * PAGE, "a");
	memset(memory, 7, 3 * PAGE);
	flush(watcher);
	CHECK_EQ(memwatch_region_read(watcher, id, buffer, 5), 5);
	CHECK_EQ(memwatch_region_read(watcher, id, buffer, sizeof buffer + 100), sizeof buffer);
	CHECK(memcmp(memory, buffer, sizeof buffer) == 0);
	memwatch_close(watcher);
}

/* --- overlap, sharing, sizes ------------------------------------------------------------------------------------ */

BACKEND_TEST(ten_regions_on_a_page_are_told_apart)
{
	uint8_t *memory = map_pages(1);
	uint64_t ids[10];
	char name[20];
	memwatch *watcher = open_backend(backend);
	for (int i = 0; i < 10; i++) {
		snprintf(name, sizeof name, "r%d", i);
		ids[i] = add_region(watcher, memory + 100 * i, 50, name);
	}
	for (uint64_t i = 0; i < 10; i++) {
		poke(memory + 100 * i + 20, 1);
		poke(memory + 100 * i + 70, 1); /* between the regions */
		const struct memwatch_event *event = only_event(watcher, i);
		CHECK_EQ(event->region_id, ids[i]);
		memwatch_event_unref(event);
	}
	check_ledgers(watcher);
	memwatch_close(watcher);
}

BACKEND_TEST(overlapping_regions_both_change)
{
	uint8_t *memory = map_pages(3);
	memwatch *watcher = open_backend(backend);
	uint64_t whole = add_region(watcher, memory, 3 * PAGE, "whole");
	uint64_t part = add_region(watcher, memory + PAGE - 10, 20, "part");
	uint64_t same = add_region(watcher, memory + PAGE - 10, 20, "same");
	poke(memory + PAGE + 5, 3);
	CHECK_EQ(newest(watcher), 3);
	CHECK_EQ(info_of(watcher, whole).ledger.delivered, 1);
	CHECK_EQ(info_of(watcher, part).ledger.delivered, 1);
	CHECK_EQ(info_of(watcher, same).ledger.delivered, 1);
	poke(memory + 5, 3);
	memwatch_event_unref(only_event(watcher, 3));
	OK(memwatch_region_remove(watcher, whole));
	poke(memory + PAGE + 5, 4); /* the others are still watched */
	CHECK_EQ(newest(watcher), 6);
	poke(memory + 5, 4);
	CHECK_EQ(newest(watcher), 6);
	check_ledgers(watcher);
	memwatch_close(watcher);
}

BACKEND_TEST(every_size_and_offset_is_exact)
{
	static const size_t sizes[] = { 1, 2, 3, 7, 8, 9, 63, 64, 65, 4095, 4096, 4097, 8192, 12289 };
	uint8_t *memory = map_pages(8);
	memwatch *watcher = open_backend(backend);
	uint64_t seq = 0;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		for (size_t start = PAGE - 1; start <= PAGE + 1; start++) {
			uint64_t id = add_region(watcher, memory + start, sizes[i], NULL);
			poke(memory + start - 1, (uint8_t)(seq + 1)); /* just outside */
			poke(memory + start + sizes[i], (uint8_t)(seq + 1));
			CHECK_EQ(newest(watcher), seq);
			uint8_t *last = memory + start + sizes[i] - 1;
			poke(last, (uint8_t)(*last + 1));
			const struct memwatch_event *event = only_event(watcher, seq);
			CHECK_EQ(event->changed_bytes, 1);
			CHECK_EQ(event->changes[0].offset, sizes[i] - 1);
			CHECK_EQ(event->size_bytes, sizes[i]);
			memwatch_event_unref(event);
			OK(memwatch_region_remove(watcher, id));
			seq++;
		}
	}
	memwatch_close(watcher);
}

BACKEND_TEST(the_same_bytes_are_unchanged)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend(backend);
	memory[5] = 5;
	uint64_t id = add_region(watcher, memory, 10, "a");
	poke(memory + 5, 5);
	CHECK_EQ(newest(watcher), 0);
	struct memwatch_ledger ledger = info_of(watcher, id).ledger;
	if (strcmp(backend, "poll") != 0)
		CHECK_EQ(ledger.unchanged, 1);
	CHECK_EQ(ledger.delivered, 0);
	check_ledger(&ledger);
	memwatch_close(watcher);
}

TEST(a_gigabyte_can_be_watched)
{
	size_t size = (size_t)1 << 30;
	uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(memory != MAP_FAILED);
	memwatch *watcher = open_backend("uffd");
	if (memwatch_region_add(watcher, memory, size, NULL, NULL) == -ENOMEM)
		SKIP("no memory for a shadow of a gigabyte");
	for (uint64_t i = 0; i < 100; i++) {
		size_t at = (size_t)(i * 10007 * 1021) % size;
		poke(memory + at, (uint8_t)(i + 1));
		const struct memwatch_event *event = only_event(watcher, i);
		CHECK_EQ(event->changes[0].offset, at);
		CHECK(strlen(event->storage_key_new) == 32);
		CHECK(event->new_value == NULL);
		memwatch_event_unref(event);
	}
	check_ledgers(watcher);
	memwatch_close(watcher);
}

TEST(a_million_regions_can_be_watched)
{
	enum { MOST = UNDER_TSAN || UNDER_ASAN || UNDER_UBSAN ? 50000 : 1000000, STEP = 32, SIZE = 16 };
	const uint64_t n_regions = (uint64_t)of_load(MOST);
	uint8_t *memory = map_pages(n_regions * STEP / PAGE + 1);
	static uint64_t ids[MOST];
	memwatch *watcher = open_backend("uffd");
	double start = harness_now_s();
	for (uint64_t i = 0; i < n_regions; i++)
		ids[i] = add_region(watcher, memory + i * STEP, SIZE, NULL);
	fprintf(stderr, "%llu regions added in %.1f s\n", (unsigned long long)n_regions, harness_now_s() - start);
	CHECK_EQ(stats_of(watcher).n_regions, n_regions);
	for (uint64_t i = 0; i < 200; i++) {
		uint64_t which = i * 7919 * 613 % n_regions;
		poke(memory + which * STEP + SIZE - 1, 1);
		const struct memwatch_event *event = only_event(watcher, i);
		CHECK_EQ(event->region_id, ids[which]);
		memwatch_event_unref(event);
	}
	start = harness_now_s();
	for (uint64_t i = 0; i < n_regions; i++)
		OK(memwatch_region_remove(watcher, ids[n_regions - 1 - i]));
	fprintf(stderr, "removed in %.1f s\n", harness_now_s() - start);
	CHECK_EQ(stats_of(watcher).n_regions, 0);
	memwatch_close(watcher);
}

TEST(listing_goes_through_all)
{
	struct memwatch_region_info infos[7];
	uint8_t *memory = map_pages(1);
	static bool seen[400];
	uint64_t ids[300], cursor = 0;
	memwatch *watcher;
	OK(memwatch_open(NULL, &watcher));
	for (int i = 0; i < 300; i++)
		ids[i] = add_region(watcher, memory + i, 1, NULL);
	for (int i = 0; i < 300; i += 3)
		OK(memwatch_region_remove(watcher, ids[i]));
	int n_seen = 0;
	for (int n; (n = memwatch_region_list(watcher, &cursor, infos, 7)) != 0;) {
		OK(n);
		for (int i = 0; i < n; i++, n_seen++) {
			uint64_t at = infos[i].address - (uintptr_t)memory;
			CHECK(at < 300 && at % 3 && !seen[at]);
			seen[at] = true;
			CHECK_EQ(infos[i].id, ids[at]);
		}
	}
	CHECK_EQ(n_seen, 200);
	memwatch_close(watcher);
}

/* --- removal ---------------------------------------------------------------------------------------------------- */

BACKEND_TEST(what_was_written_before_removal_is_delivered)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_backend(backend);
	for (uint64_t i = 0; i < 50; i++) {
		uint64_t id = add_region(watcher, memory, PAGE, "a");
		poke(memory + 10, (uint8_t)(i + 1));
		OK(memwatch_region_remove(watcher, id));
		poke(memory + 11, (uint8_t)(i + 1)); /* after it: nobody's */
		const struct memwatch_event *event = only_event(watcher, i);
		CHECK_EQ(event->region_id, id);
		CHECK_EQ(event->changed_bytes, 1);
		CHECK_EQ(event->changes[0].offset, 10);
		memwatch_event_unref(event);
	}
	memwatch_close(watcher);
}

BACKEND_TEST(memory_may_go_right_after_removal)
{
	memwatch *watcher = open_backend(backend);
	for (int i = 0; i < 200; i++) {
		uint8_t *memory = map_pages(2);
		uint64_t id = add_region(watcher, memory + 10, PAGE, "a");
		poke(memory + 20, 1);
		OK(memwatch_region_remove(watcher, id));
		munmap(memory, 2 * PAGE);
	}
	CHECK_EQ(newest(watcher), 200);
	memwatch_close(watcher);
}

struct churn {
	memwatch *watcher;
	_Atomic bool stop;
	uint8_t *memory;
};

static void *add_and_remove(void *arg)
{
	struct churn *churn = arg;
	uint64_t ids[8] = { 0 };
	for (unsigned i = 0; !atomic_load(&churn->stop); i++) {
		if (ids[i % 8])
			OK(memwatch_region_remove(churn->watcher, ids[i % 8]));
		ids[i % 8] = add_region(churn->watcher, churn->memory + i * 37 % 3000, 1 + i % 1000, NULL);
	}
	return NULL;
}

static void *write_all_over(void *arg)
{
	struct churn *churn = arg;
	for (unsigned i = 0; !atomic_load(&churn->stop); i++)
		__atomic_store_n(&churn->memory[i * 31 % PAGE], (uint8_t)(i >> 12), __ATOMIC_RELAXED);
	return NULL;
}

BACKEND_TEST(regions_come_and_go_under_writers)
{
	struct churn churn = { .watcher = open_backend(backend), .memory = map_pages(2) };
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, i % 2 ? add_and_remove : write_all_over, &churn) == 0);
	let_run(churn.watcher, 1, 10);
	atomic_store(&churn.stop, true);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	check_ledgers(churn.watcher);
	CHECK_OP(newest(churn.watcher), >, 10);
	memwatch_close(churn.watcher);
}
