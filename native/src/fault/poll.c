/*
 * poll.c -- DESIGN: every page counts as written at every sweep; the diff decides. Needs nothing, sees everything, knows no
 * author. Also takes the pages that the other backends cannot arm.
 */
#include "fault.h"

static struct page_set pages;

static int open_poll(struct ring *ring, char *note, size_t note_size)
{
	(void)ring, (void)note, (void)note_size;
	return 0;
}

static void close_poll(void)
{
}

static int arm(struct span span)
{
	return page_set_add(&pages, span);
}

static void disarm(struct span span)
{
	page_set_remove(&pages, span);
}

static int collect(struct span span, struct span_list *written)
{
	return span_list_add(written, span.start, span.end);
}

const struct backend fault_poll = {
	.name = "poll",
	.pages = &pages,
	.polls = true,
	.silent_reason = MEMWATCH_REASON_POLLING,
	.open = open_poll,
	.close = close_poll,
	.arm = arm,
	.disarm = disarm,
	.collect = collect,
	.fork_child = close_poll,
};
