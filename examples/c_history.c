/*
 * c_history.c -- what a structure held before, and who last changed each of its bytes.
 *
 *   build/examples/c_history
 *
 * The lesson: older versions are kept within a budget. memwatch_version_read gives the bytes as they were after an
 * event, memwatch_blame the event that last changed each run of bytes; an event is kept by a reference, and given back.
 */
#include <memwatch/memwatch.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

enum { RUNS = 8 };

static struct account {
	int64_t balance;
	int64_t limit;
} account = { .balance = 100, .limit = 500 };

/* Three who write; each change is an event of its own, since a flush follows it. */
__attribute__((noinline)) static void deposit(int64_t amount)
{
	account.balance += amount;
}

__attribute__((noinline)) static void withdraw(int64_t amount)
{
	account.balance -= amount;
}

__attribute__((noinline)) static void raise_limit(int64_t limit)
{
	account.limit = limit;
}

static void print_versions(memwatch *watcher, uint64_t id)
{
	for (uint64_t seq = 0; seq <= 3; seq++) {
		struct account then;
		if (memwatch_version_read(watcher, id, seq, &then, sizeof then) == sizeof then)
			printf("after event %" PRIu64 ": balance %" PRId64 ", limit %" PRId64 "\n", seq, then.balance,
			       then.limit);
		else
			printf("after event %" PRIu64 ": %s\n", seq, memwatch_error());
	}
}

static void print_blame(memwatch *watcher, uint64_t id)
{
	struct memwatch_blame runs[RUNS];
	int n = memwatch_blame(watcher, id, 0, sizeof account, runs, RUNS);
	for (int i = 0; i < n; i++) {
		const struct memwatch_event *event = runs[i].event;
		printf("bytes %" PRIu64 " to %" PRIu64 ": ", runs[i].offset, runs[i].offset + runs[i].size_bytes - 1);
		if (event)
			printf("event %" PRIu64 ", %s\n", event->seq,
			       *event->where.symbol ? event->where.symbol : "writer unknown");
		else
			printf("as they were at first\n");
		memwatch_event_unref(event);
	}
}

int main(void)
{
	struct memwatch_region_options options;
	memwatch *watcher = NULL;
	uint64_t id;
	memwatch_region_options_init(&options);
	options.name = "account";
	if (memwatch_open(NULL, &watcher) < 0 ||
	    memwatch_region_add(watcher, &account, sizeof account, &options, &id) < 0) {
		fprintf(stderr, "c_history: %s\n", memwatch_error());
		memwatch_close(watcher);
		return 1;
	}
	deposit(50);
	memwatch_flush(watcher, 1000);
	raise_limit(900);
	memwatch_flush(watcher, 1000);
	withdraw(30);
	memwatch_flush(watcher, 1000);
	print_versions(watcher, id);
	print_blame(watcher, id);
	return memwatch_close(watcher) < 0;
}
