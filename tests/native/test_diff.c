/*
 * test_diff.c -- the comparison, with the instructions that the CPU has and with those that every CPU has: what
 * differs, the ranges, the old bytes and the shadow after it are what a loop over the bytes finds.
 */
#include "harness.h"

#include "worker/diff.h"

enum { BYTES = 40000, ROUNDS = 400, FEW = 40 };

static uint8_t memory[BYTES], shadow[BYTES], before[BYTES], restored[BYTES];

/* Some bytes, or some runs of bytes, at places that blocks do not know of. */
static void change(size_t offset, size_t n)
{
	for (uint64_t changes = harness_random() % FEW; changes; changes--) {
		size_t at = offset + harness_random() % n, run = 1 + harness_random() % 8 * (harness_random() % 30);
		for (size_t i = at; i < at + run && i < offset + n; i++)
			memory[i] = (uint8_t)harness_random();
	}
}

static uint64_t count_changed(void)
{
	uint64_t n = 0;
	for (size_t i = 0; i < BYTES; i++)
		n += memory[i] != before[i];
	return n;
}

/* Each byte that differs is in a range; a range but the last, which may span the rest, holds nothing else. */
static void check_ranges(const struct diff *diff)
{
	size_t at = 0;
	for (uint32_t r = 0; r < diff->n_ranges; r++) {
		const struct memwatch_range *range = &diff->ranges[r];
		bool spans = diff->n_ranges == MEMWATCH_CHANGES_MAX && r == diff->n_ranges - 1;
		CHECK(range->size_bytes && range->offset >= at);
		for (; at < range->offset; at++)
			CHECK_EQ(memory[at], before[at]);
		CHECK(memory[at] != before[at]);
		for (; at < range->offset + range->size_bytes; at++)
			CHECK(spans || memory[at] != before[at]);
	}
	for (; at < BYTES; at++)
		CHECK_EQ(memory[at], before[at]);
}

static void check_undo(const struct diff *diff)
{
	struct undo_run run;
	CHECK(!diff->undo_lost);
	memcpy(restored, memory, BYTES);
	for (size_t at = 0; at < diff->undo_bytes; at += sizeof run + run.size_bytes) {
		memcpy(&run, diff->undo + at, sizeof run);
		CHECK_OP(run.offset + run.size_bytes, <=, BYTES);
		memcpy(restored + run.offset, diff->undo + at + sizeof run, run.size_bytes);
	}
	CHECK(memcmp(restored, before, BYTES) == 0);
}

static void check_random_changes(struct diff *diff)
{
	for (int round = 0; round < ROUNDS; round++) {
		size_t offset = harness_random() % BYTES, n = 1 + harness_random() % (BYTES - offset);
		memcpy(before, shadow, BYTES);
		change(offset, n);
		diff_reset(diff, 1 << 20);
		diff_expect(memory + offset, shadow + offset);
		diff_bytes(diff, memory + offset, shadow, offset, n);
		CHECK_EQ(diff->changed_bytes, count_changed());
		check_ranges(diff);
		check_undo(diff);
		CHECK(memcmp(shadow, memory, BYTES) == 0);
	}
}

TEST(it_finds_what_a_loop_over_the_bytes_finds)
{
	struct diff diff;
	diff_init(&diff);
	check_random_changes(&diff);
	diff_fini(&diff);
}

TEST(so_does_the_one_for_every_cpu)
{
	struct diff diff;
	diff_init(&diff);
	diff.equal_blocks = diff_equal_blocks;
	check_random_changes(&diff);
	diff_fini(&diff);
}

TEST(each_single_byte_is_found)
{
	enum { SMALL = 1024 };
	struct diff diff;
	diff_init(&diff);
	for (size_t at = 0; at < SMALL; at++) {
		memory[at + 3]++;
		diff_reset(&diff, 1 << 20);
		diff_bytes(&diff, memory + 3, shadow, 0, SMALL);
		CHECK_EQ(diff.n_ranges, 1);
		CHECK_EQ(diff.ranges[0].offset, at);
		CHECK_EQ(diff.ranges[0].size_bytes, 1);
	}
	diff_fini(&diff);
}
