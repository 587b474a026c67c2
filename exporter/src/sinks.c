/*
 * sinks.c -- DESIGN: lists the sinks of the watcher. HTTP thread; owns nothing.
 *
 * The library lists the newest first, and a program may open any number of iterators: with room for so many and no
 * more, the callback or the recorder would be missing.
 */
#include "sinks.h"

#include <errno.h>
#include <stdlib.h>

enum { SINKS_USUAL = 16 };

int sinks_list(memwatch *watcher, struct memwatch_sink_info **ret_sinks)
{
	for (size_t room = SINKS_USUAL;;) {
		struct memwatch_sink_info *sinks = calloc(room, sizeof *sinks);
		int n = sinks ? memwatch_sink_list(watcher, sinks, room) : -ENOMEM;
		if (n >= 0 && (size_t)n <= room) {
			*ret_sinks = sinks;
			return n;
		}
		free(sinks);
		if (n < 0)
			return n;
		room = (size_t)n + SINKS_USUAL;
	}
}
