/*
 * watch.h -- a part of memwatch.h, which includes it: a variable watched under its own name.
 *
 *   static double weights[16];
 *   MEMWATCH_WATCH(watcher, weights);        // 0, or what memwatch_region_add answers
 *
 * Numbers and arrays of them are told as numbers; structures, pointers, characters and all else as bytes. It needs C11,
 * or C++11.
 */
#ifndef MEMWATCH_WATCH_H
#define MEMWATCH_WATCH_H

#ifndef MEMWATCH_H
#error "include <memwatch/memwatch.h>"
#endif

MEMWATCH_INLINE int memwatch_watch_variable(memwatch *watcher, const volatile void *address, size_t size_bytes,
					    const char *name, const char *format)
{
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	options.name = name;
	options.format = format;
	return memwatch_region_add(watcher, (void *)(uintptr_t)address, size_bytes, &options, NULL);
}

#ifdef __cplusplus
#include <type_traits>
/* NULL: bytes. */
template <typename type> struct memwatch_format {
	static const char *of()
	{
		return NULL;
	}
};
/* What an array holds, or the variable's own type. */
template <typename type> struct memwatch_plain {
	typedef typename std::remove_all_extents<typename std::remove_reference<type>::type>::type element;
	typedef typename std::remove_cv<element>::type is;
};
#define MEMWATCH_FORMAT_OF(type, letter)                                                                               \
	template <> struct memwatch_format<type> {                                                                     \
		static const char *of()                                                                                \
		{                                                                                                      \
			return letter;                                                                                 \
		}                                                                                                      \
	};
MEMWATCH_FORMAT_OF(bool, "?")
MEMWATCH_FORMAT_OF(signed char, "b")
MEMWATCH_FORMAT_OF(unsigned char, "B")
MEMWATCH_FORMAT_OF(short, "h")
MEMWATCH_FORMAT_OF(unsigned short, "H")
MEMWATCH_FORMAT_OF(int, "i")
MEMWATCH_FORMAT_OF(unsigned, "I")
MEMWATCH_FORMAT_OF(long, "l")
MEMWATCH_FORMAT_OF(unsigned long, "L")
MEMWATCH_FORMAT_OF(long long, "q")
MEMWATCH_FORMAT_OF(unsigned long long, "Q")
MEMWATCH_FORMAT_OF(float, "f")
MEMWATCH_FORMAT_OF(double, "d")
#undef MEMWATCH_FORMAT_OF
#define MEMWATCH_WATCH(watcher, variable)                                                                              \
	memwatch_watch_variable((watcher), &(variable), sizeof(variable), #variable,                                   \
				memwatch_format<memwatch_plain<decltype(variable)>::is>::of())
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define MEMWATCH_EACH_NUMBER(row)                                                                                      \
	row(_Bool, "?") row(signed char, "b") row(unsigned char, "B") row(short, "h") row(unsigned short, "H")         \
		row(int, "i") row(unsigned, "I") row(long, "l") row(unsigned long, "L") row(long long, "q")            \
			row(unsigned long long, "Q") row(float, "f") row(double, "d")
#define MEMWATCH_FORMAT(type, letter)                                                                                  \
type:                                                                                                                  \
	letter, type * : letter,
#define MEMWATCH_POINTER(type, letter) type ** : (const char *)0,
/* An array becomes a pointer in the inner choice; the outer one knows a pointer from it by the address. */
#define MEMWATCH_WATCH(watcher, variable)                                                                              \
	memwatch_watch_variable((watcher), &(variable), sizeof(variable), #variable,                                   \
				_Generic(&(variable), MEMWATCH_EACH_NUMBER(MEMWATCH_POINTER) default                   \
					 : _Generic((variable), MEMWATCH_EACH_NUMBER(MEMWATCH_FORMAT) default          \
						    : (const char *)0)))
#endif

#endif
