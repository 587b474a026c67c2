/* A variable under its own name, an event as a line, and options that cannot be meant. */
#include "watching.h"

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
	OK(memwatch_close(watcher));
}
