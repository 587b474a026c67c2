/*
 * host.c -- a process with watched variables and an exporter, driven from its standard input by the tests.
 *
 * DESIGN. One line is one command, answered by one line ("ok …" or "error …"), so that the tests need no sleeps. The
 * variables are static: their addresses hold for the life of the process.
 */
#include <memwatch/exporter.h>
#include <memwatch/memwatch.h>

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, MANY_MAX = 20000, LARGE = 8192 };

static _Alignas(PAGE) struct {
	double temperature;
	long long counter;
	unsigned long long huge;
	char text[64];
	unsigned char secret[16];
	double weights[12];
	_Alignas(PAGE) unsigned char large[LARGE];
} state;

static _Alignas(PAGE) unsigned char many[MANY_MAX];

static _Alignas(PAGE) volatile uint64_t precise;

static memwatch *watcher;
static memwatch_exporter *exporter;
static uint64_t external_id;

static int watch(void *address, size_t n_bytes, const char *name, const char *format, size_t item_bytes)
{
	struct memwatch_region_options options;

	memwatch_region_options_init(&options);
	options.name = name;
	options.format = format;
	options.item_bytes = item_bytes;
	options.flags = MEMWATCH_REGION_PINNED;
	return memwatch_region_add(watcher, address, n_bytes, &options, NULL);
}

static int watch_weights(void)
{
	static const size_t shape[] = { 3, 4 };
	struct memwatch_region_options options;

	memwatch_region_options_init(&options);
	options.name = "weights";
	options.format = "d";
	options.item_bytes = sizeof(double);
	options.n_dims = 2;
	options.shape = shape;
	options.metric = 1;
	return memwatch_region_add(watcher, state.weights, sizeof state.weights, &options, NULL);
}

static int watch_policy(const char *name, enum memwatch_values values)
{
	struct memwatch_region_options options;

	memwatch_region_options_init(&options);
	options.name = name;
	options.values = values;
	return memwatch_region_add(watcher, state.secret, sizeof state.secret, &options, NULL);
}

static int watch_external(void)
{
	struct memwatch_region_options options;

	memwatch_region_options_init(&options);
	options.name = "external";
	options.flags = MEMWATCH_REGION_EXTERNAL;
	return memwatch_region_add(watcher, NULL, 0, &options, &external_id);
}

static int watch_all(void)
{
	int error = 0;

	error |= watch(&state.temperature, sizeof state.temperature, "temperature", "d", sizeof(double));
	error |= watch(&state.counter, sizeof state.counter, "counter", "q", sizeof(long long));
	error |= watch(&state.huge, sizeof state.huge, "huge", "Q", sizeof(long long));
	error |= watch(state.text, sizeof state.text, "text", NULL, 0);
	error |= watch(state.large, sizeof state.large, "large", NULL, 0);
	error |= watch_weights();
	error |= watch_policy("secret-hash", MEMWATCH_VALUES_HASH);
	error |= watch_policy("secret-none", MEMWATCH_VALUES_NONE);
	error |= watch_external();
	return error;
}

/* --- commands --------------------------------------------------------------------------------------------------- */

/* "many N": N one-byte regions with names of every hostile kind. */
/* Names of 250 letters a and a number: the worst for a pattern that ends in something else. */
static int watch_long_names(int n)
{
	char name[256];
	int error = 0;

	memset(name, 'a', 250);
	for (int i = 0; i < n && error == 0; i++) {
		snprintf(name + 250, 6, "%d", i % 10000);
		error = watch(&many[i], 1, name, "B", 1);
	}
	return error;
}

static int touch_all(int n)
{
	for (int i = 0; i < n; i++)
		many[i]++;
	return memwatch_flush(watcher, 5000);
}

static int watch_many(int n)
{
	static const char *const hostile[] = { "quote\"%d",
					       "back\\slash%d",
					       "line\nend%d",
					       "emoji \xf0\x9f\x94\xa5 %d",
					       "bad\xff"
					       "bytes%d",
					       "bad\\xffbytes%d",
					       "tab\tcr\r%d",
					       "<script>%d</script>",
					       "{a=\"b\"}%d",
					       "\xed\xa0\x80%d",
					       "\xc0\xaf%d",
					       "plain%d" };
	char name[64];
	int error = 0;

	for (int i = 0; i < n && i < MANY_MAX && error == 0; i++) {
		int length = snprintf(name, sizeof name, hostile[i % 12], i % 12 == 5 ? i - 1 : i);

		error = length < 0 ? -EINVAL : watch(&many[i], 1, name, "B", 1);
	}
	if (error == 0 && n > 0)
		error = watch(&many[0], 1, "__overflow__", NULL, 0);
	return error;
}

/* "precise": a variable with a watchpoint of its own. */
static int watch_precise(void)
{
	struct memwatch_region_options options;

	memwatch_region_options_init(&options);
	options.name = "precise";
	options.flags = MEMWATCH_REGION_PINNED;
	options.precise = MEMWATCH_PRECISE_REQUIRED;
	return memwatch_region_add(watcher, (void *)(uintptr_t)&precise, sizeof precise, &options, NULL);
}

static void write_precise(int n)
{
	for (int i = 0; i < n; i++)
		precise++;
}

/* "burst N": N changes of the counter, flushed in between so that each is an event. */
static int burst(int n)
{
	int error = 0;

	for (int i = 0; i < n && error == 0; i++) {
		state.counter++;
		error = memwatch_flush(watcher, 5000);
	}
	return error;
}

/* "post N": N events from outside, at full speed. */
static int post(int n)
{
	struct memwatch_frame frame = { "/srv/app.py", "update", 12 };
	struct memwatch_post event = { .struct_bytes = sizeof event,
				       .old_value = "before",
				       .old_bytes = 6,
				       .new_value = "afterwards",
				       .new_bytes = 10,
				       .attribution = MEMWATCH_ATTRIBUTION_EXACT,
				       .thread_name = "poster",
				       .frames = &frame,
				       .n_frames = 1,
				       .backend = "trace" };
	int error = 0;

	for (int i = 0; i < n && error == 0; i++)
		error = memwatch_event_post(watcher, external_id, &event, NULL);
	return error;
}

/* "fork": a child that closes the handle it inherited, which must do nothing, and stays for a while. */
static int fork_child(void)
{
	pid_t child = fork();

	if (child < 0)
		return -errno;
	if (child == 0) {
		memwatch_exporter_close(exporter);
		sleep(30);
		_exit(0);
	}
	printf("child %d ", (int)child);
	return 0;
}

/* How many entries a directory of /proc has. */
static int count_entries(const char *path)
{
	DIR *directory = opendir(path);
	int n = -2; /* `.` and `..` */

	if (directory == NULL)
		return -1;
	while (readdir(directory) != NULL)
		n++;
	closedir(directory);
	return n;
}

/* "remove NAME": the region of that name. */
static int remove_region(const char *name)
{
	uint64_t id;
	int error = memwatch_region_find(watcher, name, &id);

	return error < 0 ? error : memwatch_region_remove(watcher, id);
}

/* "close": how long that took, in microseconds. */
static int close_exporter(void)
{
	struct timespec begun, ended;

	clock_gettime(CLOCK_MONOTONIC, &begun);
	memwatch_exporter_close(exporter);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	exporter = NULL;
	printf("%lld ", (long long)(ended.tv_sec - begun.tv_sec) * 1000000 + (ended.tv_nsec - begun.tv_nsec) / 1000);
	return 0;
}

static _Atomic int n_bad_closes;

/* In place of the C library's, for everything here: counts descriptors that were closed already. */
int close(int fd)
{
	int result = (int)syscall(SYS_close, fd);

	if (result < 0 && errno == EBADF)
		n_bad_closes++;
	return result;
}

static _Atomic int n_threads_allowed = INT_MAX;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* which replace it themselves */
int pthread_create(pthread_t *ret_thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg)
{
	int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

	*(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
	return n_threads_allowed-- > 0 ? real(ret_thread, attributes, run, arg) : EAGAIN;
}
#endif

/* "crowded": opens it where ever more threads can be had; failures, and closes that were one too many. */
static int open_crowded(const struct memwatch_exporter_options *options)
{
	int n_failures = -1, error = -1;

	for (int n = 0; error < 0 && n < 100; n++, n_failures++) {
		n_threads_allowed = n;
		error = memwatch_exporter_open(watcher, options, &exporter);
	}
	n_threads_allowed = INT_MAX;
	printf("%d %d ", n_failures, n_bad_closes);
	return error;
}

static int open_exporter(const struct memwatch_exporter_options *options)
{
	int error = memwatch_exporter_open(watcher, options, &exporter);

	if (error == 0)
		printf("%u ", memwatch_exporter_port(exporter));
	return error;
}

static int run_command(const char *line, const struct memwatch_exporter_options *options)
{
	int n = 0;
	double x;

	if (sscanf(line, "temperature %lf", &x) == 1)
		state.temperature = x;
	else if (sscanf(line, "weight %d %lf", &n, &x) == 2)
		state.weights[n % 12] = x;
	else if (sscanf(line, "counter %lld", &state.counter) == 1 || sscanf(line, "huge %llu", &state.huge) == 1)
		return memwatch_flush(watcher, 5000);
	else if (strncmp(line, "text ", 5) == 0)
		snprintf(state.text, sizeof state.text, "%.63s", line + 5);
	else if (sscanf(line, "secret %d", &n) == 1)
		memset(state.secret, n, sizeof state.secret);
	else if (sscanf(line, "large %d", &n) == 1)
		memset(state.large, n, sizeof state.large);
	else if (sscanf(line, "touch %d", &n) == 1)
		many[n % MANY_MAX]++;
	else if (sscanf(line, "many %d", &n) == 1)
		return watch_many(n);
	else if (sscanf(line, "long_names %d", &n) == 1)
		return watch_long_names(n);
	else if (sscanf(line, "touch_all %d", &n) == 1)
		return touch_all(n);
	else if (strcmp(line, "precise") == 0)
		return watch_precise();
	else if (sscanf(line, "precise_writes %d", &n) == 1)
		write_precise(n);
	else if (sscanf(line, "burst %d", &n) == 1)
		return burst(n);
	else if (sscanf(line, "post %d", &n) == 1)
		return post(n);
	else if (strncmp(line, "remove ", 7) == 0)
		return remove_region(line + 7);
	else if (strcmp(line, "fork") == 0)
		return fork_child();
	else if (strcmp(line, "close") == 0)
		return close_exporter();
	else if (strcmp(line, "open") == 0)
		return open_exporter(options);
	else if (strcmp(line, "crowded") == 0)
		return open_crowded(options);
	else if (strcmp(line, "url") == 0)
		printf("%s ", memwatch_exporter_url(exporter));
	else if (strcmp(line, "threads") == 0)
		printf("%d ", count_entries("/proc/self/task"));
	else if (strcmp(line, "descriptors") == 0)
		printf("%d ", count_entries("/proc/self/fd"));
	else
		return -EINVAL;
	return memwatch_flush(watcher, 5000);
}

/* --- options from the command line: name=value ------------------------------------------------------------------ */

static void take_option(const char *name, char *value, struct memwatch_exporter_options *options,
			struct memwatch_options *watcher_options)
{
	const struct {
		const char *name;
		const char **place;
	} strings[] = {
		{ "host", &options->host },
		{ "unix_socket", &options->unix_socket },
		{ "token", &options->token },
		{ "tls_cert_file", &options->tls_cert_file },
		{ "tls_key_file", &options->tls_key_file },
		{ "allowed_host", &options->allowed_host },
		{ "runtime_dir", &options->runtime_dir },
		{ "service", &options->service },
		{ "metrics_users", &options->metrics_users },
		{ "backend", &watcher_options->backend },
	};
	const struct {
		const char *name;
		uint32_t *place;
	} numbers[] = {
		{ "connection_limit", &options->connection_limit },     { "feed_limit", &options->feed_limit },
		{ "variable_limit", &options->variable_limit },         { "heartbeat_ms", &options->heartbeat_ms },
		{ "event_capacity", &watcher_options->event_capacity },
	};

	for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
		if (strcmp(name, strings[i].name) == 0)
			*strings[i].place = value;
	}
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
		if (strcmp(name, numbers[i].name) == 0)
			*numbers[i].place = (uint32_t)strtoul(value, NULL, 10);
	}
	if (strcmp(name, "runtime_dir") == 0 && strcmp(value, "default") == 0)
		options->runtime_dir = NULL;
	if (strcmp(name, "port") == 0)
		options->port = (uint16_t)strtoul(value, NULL, 10);
	if (strcmp(name, "metrics_need_token") == 0)
		options->metrics_need_token = atoi(value);
	if (strcmp(name, "metrics_open") == 0)
		options->metrics_open = atoi(value);
	if (strcmp(name, "history_budget") == 0)
		watcher_options->history_budget = strtoul(value, NULL, 10);
	if (strcmp(name, "insecure") == 0)
		options->insecure = atoi(value);
}

static void allow_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static void say(int error)
{
	if (error < 0)
		printf("error %d %s\n", -error,
		       *memwatch_exporter_error() ? memwatch_exporter_error() : memwatch_error());
	else
		printf("ok\n");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct memwatch_exporter_options options;
	struct memwatch_options watcher_options;
	char line[256];
	int error;

	memwatch_exporter_options_init(&options);
	memwatch_options_init(&watcher_options);
	options.port = 0;
	options.runtime_dir = "";
	for (int i = 1; i < argc; i++) {
		char *equals = strchr(argv[i], '=');

		if (equals == NULL)
			continue;
		*equals = '\0';
		take_option(argv[i], equals + 1, &options, &watcher_options);
	}
	allow_descriptors();
	error = memwatch_open(&watcher_options, &watcher);
	if (error == 0)
		error = watch_all();
	if (error == 0)
		error = memwatch_exporter_open(watcher, &options, &exporter);
	if (error < 0) {
		say(error);
		return 1;
	}
	printf("ok %u %s %s\n", memwatch_exporter_port(exporter), memwatch_exporter_token(exporter),
	       memwatch_exporter_url(exporter));
	fflush(stdout);
	while (fgets(line, sizeof line, stdin) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		say(run_command(line, &options));
	}
	memwatch_exporter_close(exporter);
	memwatch_close(watcher);
	return 0;
}
