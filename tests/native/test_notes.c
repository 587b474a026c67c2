/*
 * test_notes.c -- which notes are told, and which are kept for the next window, when some come while a pass reads.
 */
#include "harness.h"

#include "worker/who.h"

enum { LAST = 3 * READINGS };

static struct ring ring;
static struct who who;
static struct span_list written;

static struct span page(uint64_t i)
{
	return (struct span){ i * PAGE_BYTES, (i + 1) * PAGE_BYTES };
}

static void note(uint64_t i)
{
	struct note note = { .time_ns = 1, .address = i * PAGE_BYTES, .ip = 1, .thread_id = 1 };
	CHECK(ring_push(&ring, &note));
}

static void read_page(uint64_t i)
{
	who_read(&who, page(i), ring_head(&ring));
}

/* A pass has collected pages 1 to LAST, of which the first has a note. */
static void begin(void)
{
	CHECK(!ring_init(&ring, 4096, sizeof(struct note)));
	CHECK(!span_list_add(&written, PAGE_BYTES, (LAST + 1) * PAGE_BYTES));
	note(1);
	who_begin(&who, &ring);
	who_close_window(&who);
}

/* The pages of what is kept, as many as there are. */
static void check_kept(const uint64_t *pages, uint32_t n)
{
	who_told(&who, &ring, &written, &(struct span_list){ 0 }, ring_head(&ring));
	who_keep(&who, 2);
	CHECK_EQ(who.n, n);
	for (uint32_t i = 0; i < n; i++) {
		CHECK_EQ(who.notes[i].address, pages[i] * PAGE_BYTES);
		CHECK(!who.notes[i].told);
	}
	who_fini(&who);
	ring_fini(&ring);
	span_list_fini(&written);
}

TEST(a_note_that_came_after_its_page_was_read_is_the_next_windows)
{
	begin();
	read_page(1);
	note(1);
	note(2);
	read_page(2);
	note(3);
	read_page(3);
	note(2);
	read_page(4);
	check_kept((uint64_t[]){ 1, 2 }, 2);
}

TEST(of_a_page_that_is_read_twice_the_last_time_counts)
{
	begin();
	note(2);
	read_page(2);
	note(2);
	read_page(2);
	note(2);
	check_kept((uint64_t[]){ 2 }, 1);
}

/* Then some that might be kept are not; none is that was told. */
TEST(what_was_read_is_told_however_much_it_is)
{
	begin();
	for (uint64_t i = 1; i <= LAST; i++) {
		note(i);
		read_page(i);
	}
	note(LAST);
	check_kept((uint64_t[]){ LAST }, 1);
}

TEST(what_is_not_collected_is_not_told)
{
	begin();
	note(LAST + 1);
	who_read(&who, (struct span){ PAGE_BYTES, (LAST + 2) * PAGE_BYTES }, ring_head(&ring));
	check_kept((uint64_t[]){ LAST + 1 }, 1);
}
