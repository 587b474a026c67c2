/*
 * runner.c -- tests that end in every way there is, for the test of the runner.
 */
#include "harness.h"

TEST(passes)
{
	CHECK_EQ(1 + 1, 2);
}

TEST(fails)
{
	CHECK_EQ(1 + 1, 3);
}

TEST(exits)
{
	exit(3);
}

TEST(crashes)
{
	raise(SIGSEGV);
}

TEST(hangs)
{
	if (fork() == 0)
		fprintf(stderr, "a child hangs too\n");
	for (;;)
		pause();
}

TEST(skips)
{
	SKIP("not on this machine");
}

TEST_DIES(dies_as_it_should, SIGABRT)
{
	raise(SIGABRT);
}

TEST_DIES(dies_of_another_signal, SIGABRT)
{
	raise(SIGTERM);
}

TEST_DIES(does_not_die, SIGABRT)
{
}

static int left_by_the_test_before = 1;

TEST(changes_the_process)
{
	left_by_the_test_before = 2;
}

TEST(has_a_process_of_its_own)
{
	CHECK_EQ(left_by_the_test_before, 1);
}

TEST(waits_in_vain)
{
	WAIT_FOR(left_by_the_test_before == 5);
}
