/*
 * test_symbol.c -- instructions to names: this program's own, the system's, and objects that come, go and are replaced.
 * The objects are compiled here, in a directory of the test's own.
 */
#include "harness.h"

#include "worker/symbol.h"

#include <dlfcn.h>
#include <limits.h>
#include <sys/mman.h>
#include <unistd.h>

enum { INTO = 4 }; /* bytes into a function: past its first instruction, not at its end */

static volatile int target;

/* One line, so that every instruction of it has one line number. */
/* clang-format off */
enum { STATIC_LINE = __LINE__ + 1 };
__attribute__((noinline, noclone)) static void write_here(void) { target = target + 3; target = target * 5; }
/* clang-format on */

static char directory[] = "/tmp/memwatch-symbol-XXXXXX";

static void remove_directory(void)
{
	char command[100];
	snprintf(command, sizeof command, "rm -rf %s", directory);
	if (system(command))
		perror(command);
}

static void enter_directory(void)
{
	CHECK(mkdtemp(directory));
	CHECK(chdir(directory) == 0);
	atexit(remove_directory);
}

static void shell(const char *command)
{
	if (system(command))
		FAIL("failed: %s", command);
}

static void *load(const char *path)
{
	void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!object)
		FAIL("%s", dlerror());
	return object;
}

static uint64_t inside(void *object, const char *name)
{
	void *function = dlsym(object, name);
	CHECK(function);
	return (uintptr_t)function + INTO;
}

static bool ends_with(const char *text, const char *end)
{
	return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

static void check_unknown(const struct symbol *symbol)
{
	CHECK_TEXT(symbol->symbol, "");
	CHECK_TEXT(symbol->object, "");
	CHECK_TEXT(symbol->file, "");
	CHECK_EQ(symbol->offset, 0);
	CHECK_EQ(symbol->line, 0);
}

TEST(a_static_function_has_name_file_and_line)
{
	struct symbol_table *table = symbol_table_open();
	write_here();
	const struct symbol *symbol = symbol_resolve(table, (uintptr_t)write_here + INTO);
	CHECK_TEXT(symbol->symbol, "write_here");
	CHECK(ends_with(symbol->object, "test_symbol"));
	CHECK_EQ(symbol->offset, INTO);
	CHECK(ends_with(symbol->file, "test_symbol.c"));
	CHECK_EQ(symbol->line, STATIC_LINE);
	symbol_table_close(table);
}

TEST(a_library_function_has_name_and_object)
{
	struct symbol_table *table = symbol_table_open();
	uint64_t ip = inside(load("libm.so.6"), "cbrt");
	const struct symbol *symbol = symbol_resolve(table, ip);
	CHECK(strstr(symbol->symbol, "cbrt"));
	CHECK(ends_with(symbol->object, "libm.so.6"));
	CHECK_EQ(symbol->offset, INTO);
	symbol_table_close(table);
}

TEST(any_number_may_be_asked_for)
{
	struct symbol_table *table = symbol_table_open();
	static const uint64_t numbers[] = { 0, 1, 4096, 0x7fffffffffff, 0x800000000000, UINT64_MAX };
	void *memory = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		check_unknown(symbol_resolve(table, numbers[i]));
	check_unknown(symbol_resolve(table, (uintptr_t)memory));
	check_unknown(symbol_resolve(table, (uintptr_t)&table));  /* the stack */
	check_unknown(symbol_resolve(table, (uintptr_t)&target)); /* data */
	check_unknown(symbol_resolve(NULL, (uintptr_t)write_here));
	symbol_table_close(table);
	symbol_table_close(NULL);
}

TEST(objects_come_and_go)
{
	enter_directory();
	shell("printf 'int v;\nvoid one(void) { v++; v += 2; v *= 3; }\n' > one.c && "
	      "cc -g -O1 -shared -fPIC one.c -o one.so");
	shell("printf 'int v;\n\n\nvoid two(void) { v++; v += 2; v *= 3; }\n' > two.c && "
	      "cc -g -O1 -shared -fPIC two.c -o two.so");
	struct symbol_table *table = symbol_table_open();
	symbol_resolve(table, (uintptr_t)write_here);
	for (int i = 0; i < 4; i++) {
		void *object = load(i % 2 ? "./two.so" : "./one.so");
		uint64_t ip = inside(object, i % 2 ? "two" : "one");
		const struct symbol *symbol = symbol_resolve(table, ip);
		CHECK_TEXT(symbol->symbol, i % 2 ? "two" : "one");
		CHECK(ends_with(symbol->object, i % 2 ? "two.so" : "one.so"));
		CHECK(ends_with(symbol->file, i % 2 ? "two.c" : "one.c"));
		CHECK_EQ(symbol->line, i % 2 ? 4 : 2);
		CHECK(dlclose(object) == 0);
		check_unknown(symbol_resolve(table, ip));
	}
	symbol_table_close(table);
}

TEST(what_was_not_known_may_be_loaded_later)
{
	enter_directory();
	shell("printf 'int v;\nvoid one(void) { v++; v += 2; v *= 3; }\n' > one.c && "
	      "cc -g -O1 -shared -fPIC one.c -o one.so");
	struct symbol_table *table = symbol_table_open();
	void *object = load("./one.so");
	uint64_t ip = inside(object, "one");
	dlclose(object);
	check_unknown(symbol_resolve(table, ip));
	object = load("./one.so");
	ip = inside(object, "one"); /* mostly where it was */
	CHECK_TEXT(symbol_resolve(table, ip)->symbol, "one");
	symbol_table_close(table);
}

TEST(a_separate_debug_file_is_found)
{
	enter_directory();
	shell("printf 'int v;\n\nstatic void hidden(void) { v++; v += 2; v *= 3; }\n"
	      "void *one(void) { return hidden; }\n' > one.c && "
	      "cc -g -O1 -shared -fPIC one.c -o one.so && objcopy --only-keep-debug one.so one.debug && "
	      "strip one.so && objcopy --add-gnu-debuglink=one.debug one.so");
	struct symbol_table *table = symbol_table_open();
	void *object = load("./one.so");
	union {
		void *symbol;
		void *(*call)(void);
	} one = { dlsym(object, "one") };
	const struct symbol *symbol = symbol_resolve(table, (uintptr_t)one.call() + INTO);
	CHECK_TEXT(symbol->symbol, "hidden");
	CHECK_EQ(symbol->line, 3);
	symbol_table_close(table);
}

TEST(without_an_index_of_addresses_the_line_is_found)
{
	enter_directory();
	shell("printf 'int v;\n\nvoid one(void) { v++; v += 2; v *= 3; }\n' > one.c && "
	      "cc -g -O1 -shared -fPIC one.c -o one.so && "
	      "objcopy -R .debug_aranges one.so");
	struct symbol_table *table = symbol_table_open();
	const struct symbol *symbol = symbol_resolve(table, inside(load("./one.so"), "one"));
	CHECK_TEXT(symbol->symbol, "one");
	CHECK(ends_with(symbol->file, "one.c"));
	CHECK_EQ(symbol->line, 3);
	symbol_table_close(table);
}

TEST(without_debug_information_the_name_is_found)
{
	enter_directory();
	shell("printf 'int v;\nvoid one(void) { v++; v += 2; v *= 3; }\n' > one.c && "
	      "cc -O1 -shared -fPIC one.c -o one.so && strip one.so");
	struct symbol_table *table = symbol_table_open();
	const struct symbol *symbol = symbol_resolve(table, inside(load("./one.so"), "one"));
	CHECK_TEXT(symbol->symbol, "one");
	CHECK_TEXT(symbol->file, "");
	CHECK_EQ(symbol->line, 0);
	symbol_table_close(table);
}

/* Another file's cold part lies before it, at an address that its unit does not end at. */
TEST(a_neighbours_line_is_not_believed)
{
	enter_directory();
	shell("printf 'int v;\n__attribute__((noinline)) void one(int x) { v = x; v += 2; v *= 3; }\n' > one.c && "
	      "printf '#include <stdlib.h>\nint pick(const int *p, int n);\nint pick(const int *p, int n)\n{\n"
	      "if (n < 0)\nabort();\nreturn p[n];\n}\n' > other.c && "
	      "cc -O1 -fPIC -c one.c && cc -g -O2 -fPIC -c other.c && cc -shared one.o other.o -o one.so");
	struct symbol_table *table = symbol_table_open();
	const struct symbol *symbol = symbol_resolve(table, inside(load("./one.so"), "one"));
	CHECK_TEXT(symbol->symbol, "one");
	CHECK_TEXT(symbol->file, "");
	CHECK_EQ(symbol->line, 0);
	symbol_table_close(table);
}

/* The line is the inlined function's, and so is the name beside it. */
TEST(an_inlined_function_has_its_own_name)
{
	enter_directory();
	shell("printf 'int v;\nstatic inline __attribute__((always_inline)) void set_it(void)\n"
	      "{ v++; v += 2; v *= 3; v ^= 5; }\n"
	      "void one(void)\n{ set_it(); }\n' > one.c && cc -g -O1 -shared -fPIC one.c -o one.so");
	struct symbol_table *table = symbol_table_open();
	const struct symbol *symbol = symbol_resolve(table, inside(load("./one.so"), "one"));
	CHECK_TEXT(symbol->symbol, "one");
	CHECK_TEXT(symbol->function, "set_it");
	CHECK_EQ(symbol->line, 3);
	symbol_table_close(table);
}

/* A line of the new file for an instruction of the old one would be a lie. */
TEST(a_replaced_file_is_not_believed)
{
	enter_directory();
	shell("printf 'int v;\nvoid one(void) { v++; v += 2; v *= 3; }\n' > one.c && "
	      "cc -g -O1 -shared -fPIC -Wl,--build-id one.c -o one.so && "
	      "printf 'int v;\n\n\n\nvoid two(void) { v++; v += 2; v *= 3; }\n' > two.c && "
	      "cc -g -O1 -shared -fPIC -Wl,--build-id two.c -o two.so");
	struct symbol_table *table = symbol_table_open();
	uint64_t ip = inside(load("./one.so"), "one");
	char path[PATH_MAX + 10];
	CHECK(realpath("one.so", path));
	shell("mv two.so one.so");
	const struct symbol *symbol = symbol_resolve(table, ip);
	CHECK_TEXT(symbol->symbol, "");
	CHECK_TEXT(symbol->file, "");
	CHECK(strstr(symbol->object, "one.so"));
	CHECK_OP(symbol->offset, >, 0);
	symbol_table_close(table);
}

TEST(strings_outlive_the_table)
{
	struct symbol_table *table = symbol_table_open();
	struct symbol symbol = *symbol_resolve(table, (uintptr_t)write_here + INTO);
	symbol_table_close(table);
	table = symbol_table_open();
	CHECK_TEXT(symbol.symbol, "write_here");
	CHECK(symbol_resolve(table, (uintptr_t)write_here + INTO)->symbol == symbol.symbol);
	symbol_table_close(table);
}

TEST(memory_is_bounded)
{
	struct symbol_table *table = symbol_table_open();
	for (uint64_t ip = 0; ip < 200000; ip++) /* misses without number */
		symbol_resolve(table, (uintptr_t)&target + ip * 64);
	uint64_t before = mem_total();
	for (uint64_t ip = 0; ip < 200000; ip++)
		symbol_resolve(table, (uintptr_t)&target + ip * 64 + 1);
	CHECK_EQ(mem_total(), before);
	symbol_table_close(table);
}

/* Descriptors of debug files must not reach the programs that the process starts. */
TEST(descriptors_are_private)
{
	struct symbol_table *table = symbol_table_open();
	symbol_resolve(table, (uintptr_t)write_here + INTO);
	symbol_resolve(table, inside(load("libm.so.6"), "cbrt"));
	CHECK_EQ(system("ls -l /proc/self/fd | grep -q -e libm.so -e debug -e test_symbol"), 1 << 8);
	symbol_table_close(table);
}
