/*
 * test_layout.c -- layouts that regions share: the same description is the same number, another is another, and the
 * last one that goes frees it.
 */
#include "harness.h"

#include "base/layout.h"

enum { KINDS = 300, ROUNDS = 20000, EACH_MAX = 50 };

/* The n-th of descriptions that differ in one thing or another. */
static void describe(unsigned n, struct memwatch_region_options *options, char format[16], uint64_t shape[2])
{
	memwatch_region_options_init(options);
	snprintf(format, 16, "<%c", "fdqi"[n % 4]);
	shape[0] = 1 + n / 16;
	shape[1] = 7;
	options->format = n % 5 ? format : NULL;
	options->item_bytes = n % 4 == 1 || n % 4 == 2 ? 8 : 4;
	options->n_dims = 1 + n / 8 % 2;
	options->shape = shape;
	options->fortran_order = n / 4 % 2;
}

static void check_is(const struct layout *layout, const struct memwatch_region_options *options)
{
	CHECK_EQ(layout->n_dims, options->n_dims);
	CHECK_EQ(layout->number.item_bytes, options->item_bytes);
	CHECK_EQ(layout->fortran_order, options->fortran_order);
	CHECK(strcmp(layout->format ? layout->format : "", options->format ? options->format : "") == 0);
	CHECK(memcmp(layout->shape, options->shape, options->n_dims * sizeof *layout->shape) == 0);
}

/* The last of n that is described as n is. */
static unsigned twin_of(unsigned n, const struct memwatch_region_options *options)
{
	struct memwatch_region_options other;
	char format[16];
	uint64_t shape[2];
	for (unsigned i = 0; i < n; i++) {
		describe(i, &other, format, shape);
		if (other.item_bytes == options->item_bytes && other.n_dims == options->n_dims &&
		    other.fortran_order == options->fortran_order && !other.format == !options->format &&
		    (!other.format || strcmp(other.format, options->format) == 0) &&
		    memcmp(shape, options->shape, other.n_dims * sizeof *shape) == 0)
			return i;
	}
	return n;
}

TEST(what_is_described_alike_is_one_record)
{
	static unsigned n_taken[KINDS];
	static uint32_t number[KINDS];
	struct layouts layouts;
	struct memwatch_region_options options;
	char format[16];
	uint64_t shape[2];
	uint32_t taken, n_used = 0;
	CHECK_EQ(layouts_init(&layouts), 0);
	for (int round = 0; round < ROUNDS; round++) {
		uint64_t random = harness_random();
		unsigned n = (unsigned)(random >> 8) % KINDS;
		describe(n, &options, format, shape);
		n = twin_of(n, &options);
		if (random % 2 && n_taken[n] < EACH_MAX) {
			CHECK_EQ(layout_take(&layouts, &options, &taken), 0);
			CHECK(taken != 0);
			CHECK(!n_taken[n] || taken == number[n]);
			n_used += !n_taken[n]++;
			number[n] = taken;
		} else if (n_taken[n]) {
			check_is(layout_at(&layouts, number[n]), &options);
			layout_drop(&layouts, number[n]);
			n_used -= !--n_taken[n];
		}
		CHECK_EQ(layouts.n_used, n_used);
	}
	CHECK_OP(layouts.n, <=, KINDS + 1);
	layouts_fini(&layouts);
}

TEST(plain_bytes_take_no_record)
{
	struct layouts layouts;
	struct memwatch_region_options options;
	uint32_t taken = 9;
	memwatch_region_options_init(&options);
	CHECK_EQ(layouts_init(&layouts), 0);
	CHECK_EQ(layout_take(&layouts, &options, &taken), 0);
	CHECK_EQ(taken, 0);
	CHECK_EQ(layouts.n_used, 0);
	CHECK_EQ(layout_at(&layouts, 0)->number.item_bytes, 1);
	layout_drop(&layouts, 0);
	layouts_fini(&layouts);
}
