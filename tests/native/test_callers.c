/*
 * test_callers.c -- who called the C library, or the function that stored: looked up from registers and stack bytes
 * that the handler takes. Under the sanitizers of addresses and threads the calls go to functions of theirs.
 */
#include "watching.h"

#include "base/stack.h"

#include <ucontext.h>

/* Through pointers, so that the compiler puts no stores of its own in the place of a call. */
static void *(*volatile libc_memcpy)(void *, const void *, size_t) = memcpy;
static void *(*volatile libc_memset)(void *, int, size_t) = memset;
static char *(*volatile libc_strcpy)(char *, const char *) = strcpy;
static int (*volatile libc_snprintf)(char *, size_t, const char *, ...) = snprintf;
static void (*volatile libc_qsort)(void *, size_t, size_t, int (*)(const void *, const void *)) = qsort;

/* A function with a frame of its own, whose calls are none of the last things that it does. */
#define CALLER __attribute__((noinline, noclone, optimize("omit-frame-pointer"))) static
#define STAY() __asm__ volatile("" ::: "memory")

static const uint8_t source[PAGE] = { [0 ... PAGE - 1] = 7 };

/* clang-format off */
enum { COPY_LINE = __LINE__ + 1 };
CALLER void copies(uint8_t *to, size_t n) { libc_memcpy(to, source, n); STAY(); }
CALLER void copies_too(uint8_t *to, size_t n) { libc_memcpy(to, source, n); STAY(); }
CALLER void fills(uint8_t *to) { libc_memset(to, 5, 64); STAY(); }
CALLER void names(uint8_t *to) { libc_strcpy((char *)to, "administrator"); STAY(); }
CALLER void prints(uint8_t *to) { libc_snprintf((char *)to, 64, "%d and %s", 42, "more than that"); STAY(); }
/* clang-format on */

static int compare(const void *a, const void *b)
{
	return *(const uint8_t *)a - *(const uint8_t *)b;
}

CALLER void sorts(uint8_t *to)
{
	libc_qsort(to, 64, 1, compare);
	STAY();
}

CALLER void inner(uint8_t *to)
{
	copies(to, 16);
	STAY();
}

CALLER void outer(uint8_t *to, unsigned depth)
{
	volatile uint8_t frame[100];
	frame[depth] = 1;
	if (depth)
		outer(to, depth - 1);
	else
		inner(to);
	STAY();
	CHECK(frame[depth]);
}

static memwatch *open_at_depth(unsigned depth, unsigned window_ms)
{
	struct memwatch_options options;
	SKIP_UNDER(UNDER_ASAN || UNDER_TSAN);
	memwatch_options_init(&options);
	options.backend = "uffd";
	options.attribution_budget = 1;
	options.stack_depth = depth;
	options.window_ms = window_ms;
	memwatch *watcher = open_with(&options);
	if (!stats_of(watcher).attribution_available)
		SKIP(stats_of(watcher).attribution_note);
	return watcher;
}

static bool ends_with(const char *text, const char *end)
{
	return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

static void check_writer(const struct memwatch_event *event, const char *writer)
{
	CHECK_EQ(event->where.attribution, MEMWATCH_ATTRIBUTION_EXACT);
	CHECK_TEXT(event->where.symbol, writer);
	CHECK_TEXT(event->where.native.function, writer);
	CHECK(ends_with(event->where.object, "test_callers"));
	CHECK(ends_with(event->where.native.file, "test_callers.c"));
}

static void write_copies(uint8_t *to)
{
	copies(to, 64);
}

TEST(the_function_that_called_the_c_library_is_the_writer)
{
	static const struct {
		const char *name;
		void (*write)(uint8_t *to);
	} writers[] = { { "copies", write_copies }, { "fills", fills }, { "names", names },
			{ "prints", prints },       { "sorts", sorts }, { "copies", write_copies } };
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_at_depth(1, 5);
	add_region(watcher, memory, 64, "a");
	for (uint64_t i = 0; i < sizeof writers / sizeof *writers; i++) {
		char text[512];
		writers[i].write(memory);
		const struct memwatch_event *event = only_event(watcher, i);
		const struct memwatch_where *where = &event->where;
		check_writer(event, writers[i].name);
		CHECK_EQ(where->n_frames, 0);
		CHECK(stack_in_libc(where->fault_ip));
		CHECK(where->offset > 0 && where->offset < 100);
		CHECK(!strstr(where->libc_function, writers[i].name));
		OK(memwatch_event_text(event, text, sizeof text));
		CHECK(strstr(text, writers[i].name));
		CHECK(!*where->libc_function || strstr(text, where->libc_function));
		if (writers[i].write == write_copies)
			CHECK_EQ(where->native.line, COPY_LINE);
		memwatch_event_unref(event);
	}
	OK(memwatch_close(watcher));
}

TEST(a_depth_gives_the_callers)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_at_depth(6, 5);
	add_region(watcher, memory, 64, "a");
	outer(memory, 10);
	const struct memwatch_event *event = only_event(watcher, 0);
	check_writer(event, "copies");
	CHECK_EQ(event->where.n_frames, 6);
	static const char *const callers[] = { "copies", "inner", "outer", "outer", "outer", "outer" };
	for (unsigned i = 0; i < 6; i++) {
		CHECK_TEXT(event->where.frames[i].function, callers[i]);
		CHECK(ends_with(event->where.frames[i].file, "test_callers.c"));
	}
	CHECK_EQ(event->where.frames[0].line, event->where.native.line);
	memwatch_event_unref(event);
	OK(memwatch_close(watcher));
}

__attribute__((noinline, noclone)) static void pokes(uint8_t *to)
{
	*(volatile uint8_t *)to = 9;
}

CALLER void asks(uint8_t *to)
{
	pokes(to);
	STAY();
}

TEST(who_stores_itself_has_callers_too)
{
	uint8_t *memory = map_pages(1);
	memwatch *watcher = open_at_depth(2, 5);
	add_region(watcher, memory, 64, "a");
	asks(memory);
	const struct memwatch_event *event = only_event(watcher, 0);
	check_writer(event, "pokes");
	CHECK_TEXT(event->where.libc_function, "");
	CHECK_EQ(event->where.fault_ip, (uintptr_t)pokes + event->where.offset);
	CHECK_EQ(event->where.n_frames, 2);
	CHECK_TEXT(event->where.frames[1].function, "asks");
	memwatch_event_unref(event);
	OK(memwatch_close(watcher));
}

/* --- stacks ------------------------------------------------------------------------------------------------------ */

static ucontext_t here, there;
static uint8_t *target;

CALLER void run_there(void)
{
	copies(target, 64);
	STAY();
}

TEST(a_stack_may_end_before_as_much_was_read_as_is_wanted)
{
	uint8_t *stack = map_pages(17);
	CHECK_EQ(mprotect(stack + 16 * PAGE, PAGE, PROT_NONE), 0);
	target = map_pages(1);
	memwatch *watcher = open_at_depth(8, 5);
	add_region(watcher, target, 64, "a");
	CHECK_EQ(getcontext(&there), 0);
	there.uc_stack = (stack_t){ .ss_sp = stack, .ss_size = 16 * PAGE };
	there.uc_link = &here;
	makecontext(&there, run_there, 0);
	CHECK_EQ(swapcontext(&here, &there), 0);
	const struct memwatch_event *event = only_event(watcher, 0);
	check_writer(event, "copies");
	CHECK_OP(event->where.n_frames, >=, 2);
	CHECK_TEXT(event->where.frames[1].function, "run_there");
	memwatch_event_unref(event);
	OK(memwatch_close(watcher));
}

/* More stacks in a window than there is room for: those left out are the C library's own, and nobody else's. */
TEST(stacks_that_find_no_room_cost_callers_and_no_truth)
{
	enum { N = STACKS * 2 };
	uint8_t *memory = map_pages(N);
	memwatch *watcher = open_at_depth(1, 10000);
	for (unsigned i = 0; i < N; i++)
		add_region(watcher, memory + i * PAGE, 64, NULL);
	for (unsigned round = 0; round < 3; round++) {
		const struct memwatch_event *events[N];
		unsigned n_known = 0;
		libc_memset((void *)(uintptr_t)source, 0, 0); /* bound before the window */
		for (unsigned i = 0; i < N; i++)
			(i % 2 ? copies : copies_too)(memory + i * PAGE + round * 16, 16);
		flush(watcher);
		CHECK_EQ(memwatch_events_read(watcher, round * N, events, N, NULL), N);
		for (unsigned i = 0; i < N; i++) {
			uint64_t page = (events[i]->where.fault_address - (uintptr_t)memory) / PAGE;
			bool known = ends_with(events[i]->where.object, "test_callers");
			n_known += known;
			if (known)
				check_writer(events[i], page % 2 ? "copies" : "copies_too");
			else
				CHECK(stack_in_libc(events[i]->where.fault_ip) && !*events[i]->where.libc_function);
			memwatch_event_unref(events[i]);
		}
		CHECK_EQ(n_known, STACKS);
	}
	OK(memwatch_close(watcher));
}

TEST(a_number_is_of_one_use)
{
	ucontext_t context;
	CHECK_EQ(getcontext(&context), 0);
	OK(stack_open());
	stack_take(&context, 1000, 1, 1000);
	CHECK_EQ(stack_hold(1000, 2), 0);
	CHECK_EQ(stack_hold(1001, 1), 0);
	uint32_t number = stack_hold(1000, 1);
	CHECK(number && stack_of(number));
	CHECK_EQ(stack_hold(1000, 1), 0);
	for (uint64_t i = 0; i < 2 * STACKS; i++) /* what is held is left alone */
		stack_take(&context, 2000 + i, 1, 3000);
	CHECK(stack_of(number));
	stack_release(number);
	for (unsigned i = 0; i < STACKS; i++) /* only one is free, which a handler does not look for all the way */
		stack_take(&context, 5000, 1, 5000);
	uint32_t next = stack_hold(5000, 1);
	CHECK_EQ(next % STACKS, number % STACKS);
	CHECK(!stack_of(number) && stack_of(next));
	stack_forget(3000);
	CHECK(stack_hold(2000, 1));
	stack_forget(3001);
	CHECK_EQ(stack_hold(2001, 1), 0);
	stack_fork_child();
	CHECK(!stack_of(next));
	stack_release(next); /* in the child nobody's */
}
