/* A variable under its own name, an event as a line, and options that cannot be meant. */
#include "watching.h"

#include <math.h>

static struct {
	int timeout;
} config;
static double weights[4];

static void text_of_the_newest(memwatch *watcher, char *text, size_t size)
{
	const struct memwatch_event *event;
	struct memwatch_cursor cursor;
	flush(watcher);
	OK(memwatch_events_read(watcher, 0, NULL, 0, &cursor));
	CHECK_EQ(memwatch_events_read(watcher, cursor.newest - 1, &event, 1, NULL), 1);
	int length = memwatch_event_text(event, text, size);
	CHECK_EQ(memwatch_event_text(event, NULL, 0), length);
	memwatch_event_unref(event);
}

TEST(a_variable_is_watched_under_its_own_name)
{
	char text[256];
	memwatch *watcher = open_backend("auto");
	OK(MEMWATCH_WATCH(watcher, config.timeout));
	OK(MEMWATCH_WATCH(watcher, weights));
	config.timeout = 7;
	text_of_the_newest(watcher, text, sizeof text);
	CHECK(strncmp(text, "config.timeout: 0 -> 7, w", 25) == 0);
	weights[2] = 0.5;
	text_of_the_newest(watcher, text, sizeof text);
	CHECK(strncmp(text, "weights[2]: 0 -> 0.5", 20) == 0);
	text_of_the_newest(watcher, text, 8);
	CHECK_TEXT(text, "weights");
	FAILS(memwatch_event_text(NULL, text, 8), EINVAL);
	OK(memwatch_close(watcher));
}

#define REFUSED(member, given)                                                                                         \
	do {                                                                                                           \
		memwatch_region_options_init(&options);                                                                \
		options.member = (given);                                                                              \
		FAILS(memwatch_region_add(watcher, weights, sizeof weights, &options, NULL), EINVAL);                  \
	} while (0)

TEST(options_that_cannot_be_meant)
{
	struct memwatch_region_options options;
	memwatch *watcher = open_backend("auto");
	REFUSED(format, "int");
	REFUSED(format, "%d");
	REFUSED(format, "<i4");
	REFUSED(format, "zz!!");
	REFUSED(item_bytes, 5);
	REFUSED(flags, 0xff00);
	REFUSED(n_dims, 2);
	REFUSED(shape, (const size_t[]){ 4 });
	REFUSED(metric, 1);
	REFUSED(low, 3);
	REFUSED(max_rate, 1e-300);
	REFUSED(max_rate, -1);
	OK(memwatch_close(watcher));
}

TEST(bounds_that_no_condition_looks_at)
{
	static const struct {
		enum memwatch_when when;
		double low, high;
	} meant_otherwise[] = { { MEMWATCH_WHEN_CHANGED, 3, 0 },  { MEMWATCH_WHEN_ANY_NAN, 0, 3 },
				{ MEMWATCH_WHEN_GT, 3, 9 },       { MEMWATCH_WHEN_GT, NAN, 0 },
				{ MEMWATCH_WHEN_OUTSIDE, 9, 3 },  { MEMWATCH_WHEN_INSIDE, 3, NAN },
				{ MEMWATCH_WHEN_DELTA_GT, -1, 0 } };
	memwatch *watcher = open_backend("auto");
	for (size_t i = 0; i < sizeof meant_otherwise / sizeof *meant_otherwise; i++) {
		struct memwatch_region_options options;
		memwatch_region_options_init(&options);
		options.format = "d";
		options.when = meant_otherwise[i].when;
		options.low = meant_otherwise[i].low;
		options.high = meant_otherwise[i].high;
		FAILS(memwatch_region_add(watcher, weights, sizeof weights, &options, NULL), EINVAL);
		options.low = options.high = 0; /* the sentence was about the bounds */
		OK(memwatch_region_add(watcher, weights, sizeof weights, &options, NULL));
	}
	OK(memwatch_close(watcher));
}

TEST(a_condition_that_whole_numbers_never_meet)
{
	memwatch *watcher = open_backend("auto");
	struct memwatch_region_options options;
	memwatch_region_options_init(&options);
	options.format = "i";
	options.when = MEMWATCH_WHEN_ANY_NAN;
	FAILS(memwatch_region_add(watcher, weights, sizeof weights, &options, NULL), EINVAL);
	CHECK(strstr(memwatch_error(), "can become NaN"));
	options.format = "f";
	OK(memwatch_region_add(watcher, weights, sizeof weights, &options, NULL));
	OK(memwatch_close(watcher));
}

#define REFUSED_EXTERNAL(member, given)                                                                                \
	do {                                                                                                           \
		memwatch_region_options_init(&options);                                                                \
		options.flags = MEMWATCH_REGION_EXTERNAL;                                                              \
		options.member = (given);                                                                              \
		FAILS(memwatch_region_add(watcher, NULL, 0, &options, NULL), EINVAL);                                  \
		CHECK(strstr(memwatch_error(), "EXTERNAL"));                                                           \
	} while (0)

TEST(options_of_memory_for_what_has_none)
{
	struct memwatch_region_options options;
	memwatch *watcher = open_backend("auto");
	REFUSED_EXTERNAL(flags, MEMWATCH_REGION_EXTERNAL | MEMWATCH_REGION_HASHED);
	REFUSED_EXTERNAL(flags, MEMWATCH_REGION_EXTERNAL | MEMWATCH_REGION_PINNED);
	REFUSED_EXTERNAL(max_rate, 5);
	REFUSED_EXTERNAL(backend, "poll");
	REFUSED_EXTERNAL(precise, MEMWATCH_PRECISE_REQUIRED);
	REFUSED_EXTERNAL(metric, 1);
	REFUSED_EXTERNAL(when, MEMWATCH_WHEN_GT);
	REFUSED_EXTERNAL(format, "d");
	OK(memwatch_close(watcher));
}

TEST(a_sink_is_told_by_its_whole_name)
{
	memwatch *watcher = open_backend("auto");
	memwatch_sink *sink;
	FAILS(memwatch_sink_open(watcher, "", &sink), EINVAL);
	FAILS(memwatch_sink_open(watcher, "12345678901234567890123456789012", &sink), EINVAL);
	OK(memwatch_sink_open(watcher, "1234567890123456789012345678901", &sink));
	memwatch_sink_close(sink);
	OK(memwatch_close(watcher));
}

static void text_cleaned(const char *text, const char *expected)
{
	char clean[64];
	memset(clean, '!', sizeof clean);
	CHECK_EQ(memwatch_text_clean(text, clean, sizeof clean), strlen(expected));
	CHECK_TEXT(clean, expected);
	CHECK_EQ(memwatch_text_clean(text, NULL, 0), strlen(expected));
}

TEST(what_others_have_named_is_shown_on_one_line)
{
	char text[8] = "!!!!!!!";
	text_cleaned("", "");
	text_cleaned(NULL, "");
	text_cleaned("plain \\x41", "plain \\x41");
	text_cleaned("a\nb\x1b[2J\x7f", "a\\x0ab\\x1b[2J\\x7f");
	text_cleaned("gr\u00fc\u00df \u4e16 \U0001f600", "gr\u00fc\u00df \u4e16 \U0001f600");
	text_cleaned("\xc2\x85\u202e\u200b", "\\xc2\\x85\\xe2\\x80\\xae\\xe2\\x80\\x8b");
	text_cleaned("\xff\xc3(\xc3", "\\xff\\xc3(\\xc3");
	CHECK_EQ(memwatch_text_clean("ab\n", text, 5), 6); /* cut, with its NUL, and nothing behind it */
	CHECK_TEXT(text, "ab\\x");
	CHECK_EQ(text[5], '!');
}

TEST(a_name_may_hold_any_bytes_and_its_event_is_one_line)
{
	static int value;
	char text[256], name[] = "two\nlines \x1b[31m";
	struct memwatch_region_info info;
	memwatch *watcher = open_backend("auto");
	uint64_t id = add_region(watcher, &value, sizeof value, name);
	CHECK_EQ(pthread_setname_np(pthread_self(), "a\nb"), 0);
	value = 1;
	text_of_the_newest(watcher, text, sizeof text);
	CHECK(strstr(text, "two\\x0alines \\x1b[31m: ") == text);
	for (const char *at = text; *at; at++)
		CHECK_OP(*at, >=, ' ');
	OK(memwatch_region_info_get(watcher, id, &info));
	CHECK_TEXT(info.name, name);
	OK(memwatch_close(watcher));
}
