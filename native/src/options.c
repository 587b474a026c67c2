/*
 * options.c -- what a watcher can be asked for: defaults, and what is refused. On the caller's thread; owns nothing.
 */
#include "options.h"

#include <memwatch/reader.h>

#define POLL_BUDGET_MIN 0.0001

enum { WINDOW_MS_MAX = 10000, RING_MIN = 16, RING_MAX = 1 << 24 };

void options_default(struct memwatch_options *ret_options)
{
	*ret_options = (struct memwatch_options){
		.struct_bytes = sizeof *ret_options,
		.backend = "auto",
		.window_ms = WRITABLE_WINDOW_MS,
		.ring_capacity = RING_CAPACITY,
		.attribution_budget = ATTRIBUTION_BUDGET,
		.poll_budget = POLL_BUDGET,
		.stack_depth = STACK_DEPTH,
		.inline_threshold = SMALL_COPY_THRESHOLD,
		.preview_size = PREVIEW_SIZE,
		.event_capacity = EVENT_CAPACITY,
		.event_budget = EVENT_BUDGET,
		.history_budget = HISTORY_BUDGET,
	};
}

void memwatch_options_init_sized(struct memwatch_options *options, size_t struct_bytes)
{
	struct memwatch_options defaults;
	options_default(&defaults);
	defaults.struct_bytes = struct_bytes;
	if (options)
		memwatch_struct_write(options, struct_bytes, &defaults, sizeof defaults);
}

int options_check(const struct memwatch_options *options)
{
	if (options->window_ms < 1 || options->window_ms > WINDOW_MS_MAX)
		return error_set(-EINVAL, "window_ms must be 1 to %d, not %u", WINDOW_MS_MAX, options->window_ms);
	if (options->ring_capacity < RING_MIN || options->ring_capacity > RING_MAX ||
	    options->ring_capacity & (options->ring_capacity - 1))
		return error_set(-EINVAL, "ring_capacity must be a power of two from %d to %d, not %u", RING_MIN,
				 RING_MAX, options->ring_capacity);
	if (!(options->attribution_budget >= 0 && options->attribution_budget <= 1))
		return error_set(-EINVAL, "attribution_budget must be 0 (off) to 1 (free)");
	if (!(options->poll_budget >= POLL_BUDGET_MIN && options->poll_budget <= 1))
		return error_set(-EINVAL, "poll_budget must be %g to 1, the share of one core that polling may cost",
				 POLL_BUDGET_MIN);
	if (options->stack_depth < 1 || options->stack_depth > MEMWATCH_STACK_MAX)
		return error_set(-EINVAL, "stack_depth must be 1 to %d, not %u", MEMWATCH_STACK_MAX,
				 options->stack_depth);
	if (!options->event_capacity || options->inline_threshold > 1 << 20 || options->preview_size > 1 << 20)
		return error_set(-EINVAL,
				 "event_capacity must be at least 1, inline_threshold and preview_size at most %d",
				 1 << 20);
	return 0;
}
