/*
 * test_invariants.c -- what holds of every event, whatever memory it is of, whoever writes, and with every option: a
 * mirror that only the events bring up to date is compared with all that they say. All kinds of memory are watched at
 * once, a row of options a test; what is written is random, and the same in every run.
 */
#include "kinds.h"

#include <fcntl.h>
#include <unistd.h>

enum { N_SMALL = 20, KINDS_MAX = 40, VERSIONS_MAX = 4096 };

/* --- what is watched --- */

struct options {
	const char *backend;
	int patches;
	uint32_t inline_threshold, ring_capacity;
	uint64_t history_budget;
	double max_rate;
	enum memwatch_when when;
	enum memwatch_values values;
	bool alone; /* one writer: what is told is all that there is */
};

struct watched {
	struct kind kind;
	uint64_t id, last_seq, n_events, n_merged, last_hash;
	uint8_t *mirror, *before;
	bool is_known; /* the mirror is the value after last_seq */
	unsigned n_versions;
	uint64_t seqs[VERSIONS_MAX];
	uint8_t *versions[VERSIONS_MAX];
};

struct table {
	memwatch *watcher;
	struct options options;
	struct watched all[KINDS_MAX];
	unsigned n;
	uint64_t next;
	int zero;
	bool removed; /* a region's versions are gone */
};

/* Is what an event finds what the one before it left? Between them there may be changes that are none. */
static bool is_chain(const struct table *table)
{
	return !table->options.when;
}

static bool is_hashed(const struct watched *watched)
{
	return watched->kind.flags & MEMWATCH_REGION_HASHED;
}

static void add_kind(struct table *table, struct kind kind)
{
	struct watched *watched = &table->all[table->n];
	struct memwatch_region_options options;
	char name[32];
	memwatch_region_options_init(&options);
	snprintf(name, sizeof name, "%s %u", kind.name, table->n);
	options.name = name;
	options.flags = kind.flags;
	options.precise = kind.precise;
	options.backend = kind.backend;
	options.format = kind.format;
	options.max_rate = table->options.max_rate;
	options.values = table->options.values;
	if (!is_hashed(&(struct watched){ .kind = kind }) && table->options.when) {
		options.when = table->options.when;
		options.low = 100;
	}
	*watched = (struct watched){ .kind = kind, .is_known = true };
	int error = memwatch_region_add(table->watcher, kind.start, kind.size_bytes, &options, &watched->id);
	if (error && (kind.precise == MEMWATCH_PRECISE_REQUIRED || kind.backend))
		return;
	OK(error);
	watched->mirror = calloc(1, kind.size_bytes);
	watched->before = calloc(1, kind.size_bytes);
	memcpy(watched->mirror, kind.start, kind.size_bytes);
	table->n++;
}

static void add_all(struct table *table)
{
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		struct kind kind = kinds[i];
		map_kind(&kind);
		add_kind(table, kind);
	}
	struct kind small = { "small", PRIVATE, 0, PAGE, 0, PLAIN, NULL, "B", NULL, NULL };
	map_kind(&small);
	for (unsigned i = 0; i < N_SMALL; i++) {
		struct kind kind = small;
		kind.size_bytes = 8 + i * 2;
		kind.start += i * 100 + i;
		kind.precise = i % 2 ? LENT : PLAIN;
		add_kind(table, kind);
	}
	struct kind over = { "overlap", PRIVATE, 0, 9000, 0, PLAIN, NULL, "B", NULL, NULL };
	map_kind(&over);
	add_kind(table, over);
	over.start += 3000;
	over.size_bytes = 2000;
	add_kind(table, over);
	over.start += 10;
	over.size_bytes = 100;
	over.backend = "poll";
	add_kind(table, over);
}

/* --- who writes --- */

static void write_by_kernel(const struct table *table, const struct kind *kind, uint64_t *state)
{
	size_t at = shuffle(state) % kind->size_bytes, n = kind->size_bytes - at < 100 ? kind->size_bytes - at : 100;
	CHECK(read(table->zero, kind->start + at, n) == (ssize_t)n);
}

static void write_round(struct table *table, uint64_t *state)
{
	const struct kind *kind = &table->all[shuffle(state) % table->n].kind;
	bool writes_kernel = strcmp(table->options.backend, "mprotect") != 0;
	unsigned way = (unsigned)(shuffle(state) % 16);
	if (way == 0 && writes_kernel)
		write_by_kernel(table, kind, state);
	else if (way < 4 && kind->other)
		write_some(kind, kind->other, state);
	else if (way == 5 && kind->memory == SHARED)
		write_in_child(kind, state);
	else
		write_some(kind, kind->start, state);
	if (kind->memory == HEAP)
		put(kind->start - 20, shuffle(state), 8);
}

static atomic_bool enough;

static void *write_always(void *arg)
{
	const struct table *table = arg;
	uint64_t state = 4711;
	while (!atomic_load(&enough)) {
		const struct kind *kind = &table->all[shuffle(&state) % table->n].kind;
		write_some(kind, kind->start, &state);
		if (shuffle(&state) % 8 == 0)
			usleep((useconds_t)(shuffle(&state) % 500));
	}
	return NULL;
}

/* --- what is said --- */

#define IS(condition)                                                                                                  \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			FAIL("%s, event %llu: %s is false", event->name, (unsigned long long)event->seq, #condition);  \
	} while (0)

static uint64_t check_ranges(const struct memwatch_event *event)
{
	uint64_t end = 0, n_bytes = 0;
	IS(event->n_changes <= MEMWATCH_CHANGES_MAX);
	for (uint32_t i = 0; i < event->n_changes; i++) {
		IS(!i || event->changes[i].offset > end);
		IS(event->changes[i].size_bytes > 0);
		end = event->changes[i].offset + event->changes[i].size_bytes;
		n_bytes += event->changes[i].size_bytes;
	}
	IS(end <= event->size_bytes);
	IS(!event->n_changes || event->changed_bytes <= n_bytes);
	IS(event->changed_bytes > 0 && event->changed_bytes <= event->size_bytes);
	return n_bytes;
}

/* The ranges are those that differ; of too many, and of merged ones, they hold those. */
static void check_difference(const struct memwatch_event *event, const uint8_t *old, const uint8_t *now, bool exact)
{
	uint64_t n = 0, at = 0;
	for (uint32_t i = 0; i <= event->n_changes; i++) {
		uint64_t from = i < event->n_changes ? event->changes[i].offset : event->size_bytes;
		uint64_t size = i < event->n_changes ? event->changes[i].size_bytes : 0;
		IS(memcmp(old + at, now + at, from - at) == 0);
		bool all = exact && i < MEMWATCH_CHANGES_MAX - 1;
		for (uint64_t b = from; b < from + size; b++) {
			n += old[b] != now[b];
			IS(!all || old[b] != now[b]);
		}
		at = from + size;
	}
	if (exact && event->changed_bytes != n)
		FAIL("%s, event %llu: changed_bytes is %llu, not %llu", event->name, (unsigned long long)event->seq,
		     (unsigned long long)event->changed_bytes, (unsigned long long)n);
	IS(event->merged || event->changed_bytes == n);
}

/* Goes over runs of (offset, size, bytes): each of `runs` is in `value`. */
static void check_runs(const struct memwatch_event *event, const uint8_t *runs, uint64_t n_bytes, const uint8_t *value)
{
	uint64_t run[2], end = 0;
	for (uint64_t at = 0; at < n_bytes; at += sizeof run + run[1]) {
		memcpy(run, runs + at, sizeof run);
		IS(run[0] >= end && run[1] > 0);
		end = run[0] + run[1];
		IS(end <= event->size_bytes && at + sizeof run + run[1] <= n_bytes);
		IS(memcmp(runs + at + sizeof run, value + run[0], run[1]) == 0);
	}
}

static void apply_patch(const struct memwatch_event *event, uint8_t *mirror)
{
	uint64_t run[2];
	for (uint64_t at = 0; at < event->patch_bytes; at += sizeof run + run[1]) {
		memcpy(run, event->patch + at, sizeof run);
		IS(run[0] + run[1] <= event->size_bytes);
		memcpy(mirror + run[0], event->patch + at + sizeof run, run[1]);
	}
}

/* What no range lists is as it was. */
static void check_preview(const struct memwatch_event *event)
{
	uint64_t at = 0, head = event->old_preview && event->new_preview ? event->preview_bytes : 0;
	for (uint32_t i = 0; at < head; i++) {
		uint64_t from = i < event->n_changes ? event->changes[i].offset : head, to = from < head ? from : head;
		IS(to <= at || memcmp(event->old_preview + at, event->new_preview + at, to - at) == 0);
		at = i < event->n_changes ? from + event->changes[i].size_bytes : head;
	}
}

/* Both sides have the same items, and each is in a range. */
static void check_excerpt(const struct memwatch_event *event)
{
	uint64_t run[2], other[2];
	for (uint64_t at = 0; at < event->excerpt_bytes; at += sizeof run + run[1]) {
		memcpy(run, event->old_excerpt + at, sizeof run);
		memcpy(other, event->new_excerpt + at, sizeof other);
		IS(run[0] == other[0] && run[1] == other[1] && run[1] > 0);
		IS(run[0] % event->item_bytes == 0 && run[1] % event->item_bytes == 0);
		IS(run[0] + run[1] <= event->size_bytes && run[0] + run[1] > event->preview_bytes);
		for (uint64_t item = run[0]; item < run[0] + run[1]; item += event->item_bytes) {
			uint32_t i = 0;
			while (i < event->n_changes && event->changes[i].offset + event->changes[i].size_bytes <= item)
				i++;
			IS(i < event->n_changes && event->changes[i].offset < item + event->item_bytes);
		}
	}
}

static void check_where(const struct memwatch_event *event)
{
	const struct memwatch_where *where = &event->where;
	IS((where->attribution == MEMWATCH_ATTRIBUTION_NONE) == (where->reason != MEMWATCH_REASON_NONE));
	IS((where->attribution == MEMWATCH_ATTRIBUTION_PAGE) == (where->page_writer != NULL));
	IS(where->attribution == MEMWATCH_ATTRIBUTION_EXACT ||
	   (!where->fault_ip && !where->thread_id && !*where->symbol));
	IS(where->attribution != MEMWATCH_ATTRIBUTION_EXACT || where->thread_id);
	IS(event->merged == 0 || where->attribution != MEMWATCH_ATTRIBUTION_EXACT || strstr(event->name, "precise"));
}

/* What the policy hides is not there, and what it shows is. */
static void check_policy(const struct table *table, const struct watched *watched, const struct memwatch_event *event)
{
	enum memwatch_values values = table->options.values;
	bool shows = values == MEMWATCH_VALUES_FULL, previews = shows || values == MEMWATCH_VALUES_PREVIEW;
	bool is_inline = shows && event->size_bytes <= table->options.inline_threshold && !is_hashed(watched);
	IS(event->values == values);
	IS(event->old_bytes == event->size_bytes && event->new_bytes == event->size_bytes);
	IS((event->old_value != NULL) == is_inline && (event->new_value != NULL) == is_inline);
	IS((event->old_preview != NULL) == (previews && !is_hashed(watched)));
	IS((event->new_preview != NULL) == previews);
	IS(event->preview_bytes == (!previews ? 0 : event->size_bytes < 256 ? event->size_bytes : 256));
	IS((event->n_changes > 0) == previews);
	IS(!event->patch || (table->options.patches && shows && !event->merged));
	IS((event->patch != NULL) == (event->patch_old != NULL) && (event->patch != NULL) == (event->patch_bytes != 0));
	IS((event->old_excerpt != NULL) == (event->excerpt_bytes != 0));
	IS((event->new_excerpt != NULL) == (event->excerpt_bytes != 0));
	IS(!event->excerpt_bytes || (shows && !is_inline && !is_hashed(watched)));
	IS(!*event->storage_key_new == (!shows || is_inline || is_hashed(watched)));
	IS(!*event->storage_key_old || *event->storage_key_new);
	if (values == MEMWATCH_VALUES_HASH && !is_hashed(watched)) {
		IS(event->old_hash != event->new_hash);
		IS(!is_chain(table) || !watched->last_hash || watched->last_hash == event->old_hash);
	} else {
		IS(!event->new_hash && !event->old_hash);
	}
}

static void check_key(const struct table *table, const struct memwatch_event *event, const char *key,
		      const uint8_t *value)
{
	static uint8_t loaded[LARGEST];
	if (!*key)
		return;
	int64_t n = memwatch_load(table->watcher, key, loaded, sizeof loaded);
	if (n == -ENOENT && (table->removed || table->options.history_budget < 1 << 20))
		return;
	OK(n);
	IS((uint64_t)n == event->size_bytes);
	IS(memcmp(loaded, value, event->size_bytes) == 0);
}

/* What it names is what the event's old value is; the new one differs from it where the ranges say. */
static void check_old_key(const struct table *table, const struct memwatch_event *event)
{
	static uint8_t old[LARGEST], now[LARGEST];
	if (!*event->storage_key_old || memwatch_load(table->watcher, event->storage_key_old, old, sizeof old) < 0 ||
	    memwatch_load(table->watcher, event->storage_key_new, now, sizeof now) < 0)
		return;
	IS(memcmp(old, event->old_preview, event->preview_bytes) == 0);
	check_runs(event, event->old_excerpt, event->excerpt_bytes, old);
	check_difference(event, old, now, !event->merged);
}

/* The value after the event, from what is there of it. False: it is not known. */
static bool read_now(const struct table *table, struct watched *watched, const struct memwatch_event *event)
{
	uint64_t size = event->size_bytes;
	if (event->new_value) {
		memcpy(watched->mirror, event->new_value, size);
	} else if (event->patch && watched->is_known) {
		apply_patch(event, watched->mirror);
	} else {
		int64_t n = memwatch_version_read(table->watcher, watched->id, event->seq, watched->mirror, size);
		if (n == -ENOENT && (table->removed || table->options.history_budget < 1 << 20))
			return false;
		OK(n);
	}
	return true;
}

static void check_values(const struct table *table, struct watched *watched, const struct memwatch_event *event)
{
	bool was_known = watched->is_known && is_chain(table);
	uint64_t head = event->preview_bytes;
	memcpy(watched->before, watched->mirror, event->size_bytes);
	if (was_known) {
		if (event->patch)
			check_runs(event, event->patch_old, event->patch_bytes, watched->before);
		check_key(table, event, event->storage_key_old, watched->before);
		IS(!event->old_value || memcmp(event->old_value, watched->before, event->size_bytes) == 0);
		IS(memcmp(event->old_preview, watched->before, head) == 0);
		if (event->excerpt_bytes)
			check_runs(event, event->old_excerpt, event->excerpt_bytes, watched->before);
	}
	check_old_key(table, event);
	watched->is_known = read_now(table, watched, event);
	if (!watched->is_known)
		return;
	IS(memcmp(event->new_preview, watched->mirror, head) == 0);
	if (event->excerpt_bytes)
		check_runs(event, event->new_excerpt, event->excerpt_bytes, watched->mirror);
	if (event->patch)
		check_runs(event, event->patch, event->patch_bytes, watched->mirror);
	check_key(table, event, event->storage_key_new, watched->mirror);
	if (event->old_value)
		check_difference(event, event->old_value, event->new_value, true);
	else if (was_known)
		check_difference(event, watched->before, watched->mirror, !event->merged);
	if (watched->n_versions < VERSIONS_MAX) {
		watched->seqs[watched->n_versions] = event->seq;
		watched->versions[watched->n_versions] = malloc(event->size_bytes);
		memcpy(watched->versions[watched->n_versions++], watched->mirror, event->size_bytes);
	}
}

/* A filtered change is no event: one element of what is told at least is as asked. */
static void check_when(const struct table *table, const struct watched *watched, const struct memwatch_event *event)
{
	size_t item = strcmp(watched->kind.format ? watched->kind.format : "B", "i") == 0 ? 4 : 1, n = 0;
	if (!table->options.when || is_hashed(watched) || !event->old_value || event->merged)
		return;
	for (uint64_t at = 0; at < event->size_bytes; at += item) {
		int32_t number = event->new_value[at];
		if (item == 4)
			memcpy(&number, event->new_value + at, 4);
		n += memcmp(event->old_value + at, event->new_value + at, item) != 0 && number > 100;
	}
	IS(n > 0);
}

static void check_event(struct table *table, const struct memwatch_event *event)
{
	struct watched *watched = table->all;
	while (watched < table->all + table->n && watched->id != event->region_id)
		watched++;
	IS(watched < table->all + table->n);
	IS(event->kind == MEMWATCH_EVENT_CHANGE);
	IS(event->size_bytes == watched->kind.size_bytes);
	IS(event->time_ns <= event->detected_ns);
	check_ranges(event);
	check_preview(event);
	check_excerpt(event);
	check_where(event);
	check_policy(table, watched, event);
	if (table->options.values == MEMWATCH_VALUES_FULL && !is_hashed(watched)) {
		check_values(table, watched, event);
		check_when(table, watched, event);
	}
	watched->last_hash = event->new_hash;
	watched->last_seq = event->seq;
	watched->n_events++;
	watched->n_merged += event->merged;
}

static void check_events(struct table *table)
{
	struct memwatch_cursor cursor = { .next = table->next };
	const struct memwatch_event *event;
	while (memwatch_events_read(table->watcher, table->next, &event, 1, &cursor) == 1) {
		IS(event->seq == table->next + 1 && !cursor.missed);
		table->next = event->seq;
		check_event(table, event);
		memwatch_event_unref(event);
	}
}

/* --- at rest --- */

/* Each version that was, and who made it what it is; of those between its own events, too. */
static void check_versions(struct table *table, struct watched *watched)
{
	static uint8_t loaded[LARGEST];
	bool all_kept = table->options.history_budget > 1 << 20;
	bool found = false;
	for (unsigned i = 0; i < watched->n_versions; i++) {
		uint64_t end = i + 1 < watched->n_versions ? watched->seqs[i + 1] : table->next + 1;
		uint64_t seq = i % 2 ? watched->seqs[i] : end - 1;
		int64_t n = memwatch_version_read(table->watcher, watched->id, seq, loaded, sizeof loaded);
		if (n == -ENOENT && !all_kept && !found)
			continue;
		OK(n);
		found = true;
		if (memcmp(loaded, watched->versions[i], watched->kind.size_bytes) != 0)
			FAIL("%s: version %llu is another", watched->kind.name, (unsigned long long)watched->seqs[i]);
	}
}

static void check_blame(struct table *table, struct watched *watched)
{
	size_t size = watched->kind.size_bytes, at = 0;
	static struct memwatch_blame blames[LARGEST / 2];
	while (at < size) {
		int n = memwatch_blame(table->watcher, watched->id, at, size - at, blames, LARGEST / 2);
		OK(n);
		CHECK(n > 0);
		for (int i = 0; i < n; i++) {
			CHECK_EQ(blames[i].offset, at);
			uint64_t seq = blames[i].event ? blames[i].event->seq : 0;
			for (uint64_t b = at; b < at + blames[i].size_bytes; b++) {
				unsigned v = watched->n_versions;
				while (--v && watched->versions[v][b] == watched->versions[v - 1][b])
					;
				if ((v ? watched->seqs[v] : seq) != seq)
					FAIL("%s: byte %llu is blamed on %llu, not %llu", watched->kind.name,
					     (unsigned long long)b, (unsigned long long)seq,
					     (unsigned long long)watched->seqs[v]);
			}
			at += blames[i].size_bytes;
			memwatch_event_unref(blames[i].event);
		}
	}
}

static void check_rest(struct table *table, struct watched *watched)
{
	static uint8_t loaded[LARGEST];
	struct memwatch_region_info info;
	uint64_t seq;
	OK(memwatch_region_info_get(table->watcher, watched->id, &info));
	CHECK_EQ(info.last_seq, watched->last_seq);
	CHECK_EQ(info.ledger.delivered, watched->n_events);
	CHECK_OP(info.ledger.coalesced, >=, watched->n_merged);
	if (table->options.values != MEMWATCH_VALUES_FULL)
		return;
	OK(memwatch_region_snapshot(table->watcher, watched->id, loaded, sizeof loaded, &seq));
	CHECK_EQ(seq, watched->last_seq);
	if (memcmp(loaded, watched->kind.start, watched->kind.size_bytes) != 0)
		FAIL("%s: the shadow is not what memory holds", watched->kind.name);
	if (is_hashed(watched))
		return;
	if (!table->options.when && watched->is_known &&
	    memcmp(watched->mirror, watched->kind.start, watched->kind.size_bytes) != 0)
		FAIL("%s: the last event's value is not what memory holds", watched->kind.name);
	if (watched->n_versions == VERSIONS_MAX) /* there are more than are kept here */
		return;
	check_versions(table, watched);
	if (is_chain(table) && !table->options.max_rate && table->options.history_budget > 1 << 20 &&
	    watched->n_versions)
		check_blame(table, watched);
}

/* What was written before a region goes is told, also what a rate holds back. */
static void remove_all(struct table *table, uint64_t *state)
{
	for (unsigned i = 0; i < table->n; i++) {
		struct watched *watched = &table->all[i];
		for (unsigned n = 0; n < 3; n++)
			write_some(&watched->kind, watched->kind.start, state);
		memcpy(watched->before, watched->kind.start, watched->kind.size_bytes);
		static uint8_t now[LARGEST];
		memcpy(now, watched->kind.start, watched->kind.size_bytes);
		OK(memwatch_region_remove(table->watcher, watched->id));
		table->removed = true;
		flush(table->watcher); /* the names of its writers */
		check_events(table);
		table->removed = false;
		bool knows = table->options.values == MEMWATCH_VALUES_FULL && !is_hashed(watched) &&
			     !table->options.when && watched->is_known;
		if (knows && memcmp(watched->mirror, now, watched->kind.size_bytes) != 0)
			FAIL("%s: the last event's value is not what memory held", watched->kind.name);
	}
	struct memwatch_stats stats = stats_of(table->watcher);
	check_ledger(&stats.ledger);
	CHECK_EQ(stats.ledger.dropped, 0);
	CHECK_EQ(stats.history.bytes, 0);
	CHECK_EQ(stats.n_regions, 0);
	CHECK_EQ(stats.armed_pages, 0);
}

static void watch_all(struct options given)
{
	static struct table table;
	struct memwatch_options options;
	uint64_t state = 88172645463325252u;
	pthread_t writer;
	memwatch_options_init(&options);
	table.options = given;
	table.zero = open("/dev/zero", O_RDONLY);
	options.backend = given.backend;
	options.patches = given.patches;
	options.inline_threshold = given.inline_threshold;
	options.ring_capacity = given.ring_capacity;
	options.history_budget = given.history_budget;
	options.attribution_budget = 1;
	table.watcher = open_with(&options);
	add_all(&table);
	if (!given.alone)
		CHECK_EQ(pthread_create(&writer, NULL, write_always, &table), 0);
	for (unsigned i = 0, n_rounds = (unsigned)of_load(160); i < n_rounds; i++) {
		write_round(&table, &state);
		if (i % 4 == 0)
			flush(table.watcher);
		check_events(&table);
	}
	atomic_store(&enough, true);
	if (!given.alone)
		pthread_join(writer, NULL);
	flush(table.watcher);
	check_events(&table);
	check_ledgers(table.watcher);
	check_events(&table);
	for (unsigned i = 0; i < table.n; i++)
		check_rest(&table, &table.all[i]);
	remove_all(&table, &state);
	OK(memwatch_close(table.watcher));
}

#define MUCH (UINT64_C(256) << 20)

/* What a row leaves at 0 is as usual. */
static void watch_row(struct options row)
{
	row.inline_threshold = row.inline_threshold ? row.inline_threshold : 4096;
	row.ring_capacity = row.ring_capacity ? row.ring_capacity : 65536;
	row.history_budget = row.history_budget ? row.history_budget : MUCH;
	watch_all(row);
}

#define ROW(name, ...)                                                                                                 \
	TEST(name)                                                                                                     \
	{                                                                                                              \
		watch_row((struct options){ .backend = "uffd", __VA_ARGS__ });                                         \
	}
#define BACKENDS_ROW(name, ...)                                                                                        \
	BACKEND_TEST(name)                                                                                             \
	{                                                                                                              \
		watch_row((struct options){ .backend = backend, __VA_ARGS__ });                                        \
	}

BACKENDS_ROW(by_default, .patches = 0)
BACKENDS_ROW(with_patches_alone, .patches = 1, .inline_threshold = 1, .history_budget = 100000)
BACKENDS_ROW(with_a_condition_and_a_rate, .inline_threshold = 1 << 20, .max_rate = 50, .when = MEMWATCH_WHEN_GT)
ROW(with_a_condition_a_rate_and_keys, .inline_threshold = 16, .max_rate = 50, .when = MEMWATCH_WHEN_GT)
ROW(with_previews_a_condition_and_a_rate, .values = MEMWATCH_VALUES_PREVIEW, .max_rate = 50, .when = MEMWATCH_WHEN_GT)
ROW(by_one_writer, .alone = true)
ROW(with_patches, .patches = 1)
ROW(with_a_small_ring, .patches = 1, .ring_capacity = 16)
ROW(with_all_inline, .inline_threshold = 1 << 20, .history_budget = 1)
ROW(with_a_rate, .patches = 1, .max_rate = 50)
ROW(with_a_rate_and_keys, .inline_threshold = 16, .max_rate = 50)
ROW(with_a_condition, .inline_threshold = 1 << 20, .patches = 1, .when = MEMWATCH_WHEN_GT)
ROW(with_previews, .values = MEMWATCH_VALUES_PREVIEW, .patches = 1)
ROW(with_hashes, .values = MEMWATCH_VALUES_HASH, .patches = 1)
ROW(with_hashes_and_a_rate, .values = MEMWATCH_VALUES_HASH, .max_rate = 50)
ROW(with_nothing, .values = MEMWATCH_VALUES_NONE)
