/*
 * test_demangle.c -- readable names. This program has no C++ library: test_cplusplus.py has one that does.
 */
#include "harness.h"

#include "worker/demangle.h"

static void check(const char *symbol, const char *readable)
{
	char buffer[200];
	CHECK_TEXT(demangle(symbol, buffer, sizeof buffer), readable);
}

TEST(rust_names_are_readable)
{
	check("_ZN4core3ptr13drop_in_place17h0123456789abcdefE", "core::ptr::drop_in_place");
	check("_ZN36_$LT$alloc..Vec$u20$as$u20$Clone$GT$5clone17h0123456789abcdefE", "<alloc::Vec as Clone>::clone");
	check("_ZN4main5store28_$u7b$$u7b$closure$u7d$$u7d$17hfedcba9876543210E", "main::store::{{closure}}");
}

TEST(what_compilers_append_is_left_out)
{
	check("set.constprop.0", "set");
	check("set.isra.0.part.12.cold", "set");
	check("set.part.3.llvm.1234567890123456789", "set");
	check("set.__uniq.12345.llvm.67", "set");
	check("_ZN4main5store17hfedcba9876543210E.llvm.123", "main::store");
	check("main.(*Part).cold2", "main.(*Part).cold2"); /* Go's */
	check("inner.0", "inner.0");
	check(".cold", ".cold");
	check("set.partial", "set.partial");
	check("main.part.of", "main.part.of");
}

TEST(what_cannot_be_read_stays_as_it_is)
{
	static const char *const symbols[] = {
		"",
		"main",
		"_Z",
		"_ZN",
		"_ZNE",
#ifndef MEMWATCH_UBSAN /* which brings the C++ library */
		"_ZN3app3setEi",
		"_ZN17h0123456789abcdefE",
#endif
		"_ZN99999999999999999999app17h0123456789abcdefE",
		"_ZN4$LT$17h0123456789abcde",
		"_ZN5a$u20b17h0123456789abcdefE",
		"_RNvCs1234_7mycrate3foo",
	};
	for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
		check(symbols[i], symbols[i]);
	char small[8];
	CHECK_TEXT(demangle("_ZN4core3ptr13drop_in_place17h0123456789abcdefE", small, sizeof small),
		   "_ZN4core3ptr13drop_in_place17h0123456789abcdefE");
}
