/*
 * resolver.c -- DESIGN: a queue of logs that have events without names, and a thread that takes them in turn. Of a log
 * it asks for the oldest event that has no name yet, looks its instruction up with no lock that anybody waits for, and
 * lets the log show what is ready. The backlog is the log itself, so it is bounded as that is.
 *
 * The thread is one of memwatch's own: what it writes to is nobody's change.
 *
 * Loss: an event that is evicted before its turn, or shown because its watcher closes, has no names.
 */
#define _GNU_SOURCE
#include "resolver.h"

#include "engine.h"
#include "symbol.h"
#include "../base/stack.h"

#include <string.h>
#include <unistd.h>

enum {
	LOGS = 256,       /* more than there are watchers */
	LIBC_FRAMES = 24, /* of the C library's, before the writer's own are given up */
	FRAMES = LIBC_FRAMES + MEMWATCH_STACK_MAX
};

/* What is found out about a writer. */
struct names {
	struct symbol symbol; /* of the storing function, or of the one that called the C library */
	uint64_t past;        /* from the address that `symbol` was looked up by to the one that is told */
	const char *libc_function;
	unsigned n_frames; /* native ones */
	struct memwatch_frame frames[MEMWATCH_STACK_MAX];
};

struct resolver {
	unsigned depth;
	struct symbol_table *symbols;
	pthread_mutex_t looking; /* held during a look-up */
	pthread_mutex_t lock;    /* of all below */
	pthread_cond_t wanted;
	struct log *logs[LOGS]; /* with a reference each */
	unsigned n_logs;
	bool stopping;
	pthread_t thread;
	_Atomic int32_t thread_id;
};

int resolver_open(unsigned depth, struct resolver **ret_resolver)
{
	struct resolver *resolver = mem_alloc(sizeof *resolver);
	if (!resolver)
		return error_set(-ENOMEM, "no memory for the look-up of symbols");
	*resolver = (struct resolver){ .depth = depth, .symbols = symbol_table_open() };
	pthread_mutex_init(&resolver->looking, NULL);
	pthread_mutex_init(&resolver->lock, NULL);
	pthread_cond_init(&resolver->wanted, NULL);
	*ret_resolver = resolver;
	return 0;
}

void resolver_close(struct resolver *resolver)
{
	if (!resolver)
		return;
	while (resolver->n_logs)
		log_unref(resolver->logs[--resolver->n_logs]);
	symbol_table_close(resolver->symbols);
	pthread_cond_destroy(&resolver->wanted);
	pthread_mutex_destroy(&resolver->lock);
	pthread_mutex_destroy(&resolver->looking);
	mem_free(resolver);
}

static struct memwatch_frame frame_of(const struct symbol *symbol)
{
	return (struct memwatch_frame){ symbol->file, symbol->function, symbol->line };
}

static void fill(struct event *event, const void *arg)
{
	const struct names *names = arg;
	struct memwatch_where *where = event_writer(event);
	where->symbol = names->symbol.symbol;
	where->object = names->symbol.object;
	where->offset = names->symbol.offset + names->past;
	where->native = frame_of(&names->symbol);
	where->libc_function = names->libc_function;
	if (!where->n_frames) { /* not in the interpreter */
		where->n_frames = names->n_frames;
		memcpy(event->frames, names->frames, names->n_frames * sizeof *event->frames);
	}
	stack_release(event->stack);
	event->stack = 0;
}

/* The storing function alone. */
static struct names names_of(const struct event *event, const struct symbol *symbol)
{
	const struct memwatch_where *where = event->shown.where.page_writer ? event->shown.where.page_writer
									    : &event->shown.where;
	return (struct names){ .symbol = *symbol, .past = where->fault_ip - event->named_ip, .libc_function = "" };
}

void resolver_name(struct resolver *resolver, struct event *event)
{
	struct symbol symbol;
	if (!event->named_ip)
		return;
	event->is_unnamed = event->stack || !symbol_known(resolver->symbols, event->named_ip, &symbol);
	if (!event->is_unnamed) {
		struct names names = names_of(event, &symbol);
		fill(event, &names);
	}
}

/* --- its thread --- */

/* The writer's callers, as far as its stack tells. */
static void name_callers(struct resolver *resolver, const struct stack *stack, struct names *names)
{
	uint64_t ips[FRAMES];
	unsigned n = symbol_walk(resolver->symbols, stack, resolver->depth, ips, FRAMES), first = 0;
	while (first < n && stack_in_libc(ips[first]))
		first++;
	if (first > LIBC_FRAMES || first == n)
		return;
	if (first) {
		names->libc_function = names->symbol.symbol;
		names->symbol = *symbol_resolve(resolver->symbols, ips[first]);
		names->past = 1;
	}
	if (resolver->depth == 1)
		return;
	names->frames[names->n_frames++] = frame_of(&names->symbol);
	for (unsigned i = first + 1; i < n && names->n_frames < resolver->depth; i++)
		names->frames[names->n_frames++] = frame_of(symbol_resolve(resolver->symbols, ips[i]));
}

static void find_names(struct resolver *resolver, const struct event *event, struct names *ret_names)
{
	const struct stack *stack = stack_of(event->stack);
	*ret_names = names_of(event, symbol_resolve(resolver->symbols, event->named_ip));
	if (stack)
		name_callers(resolver, stack, ret_names);
}

static void name_log(struct resolver *resolver, struct log *log)
{
	struct names names;
	struct event *event;
	while ((event = log_first_unnamed(log))) {
		pthread_mutex_lock(&resolver->looking);
		find_names(resolver, event, &names);
		pthread_mutex_unlock(&resolver->looking);
		log_complete(log, event, fill, &names);
		log_announce(log);
		memwatch_event_unref(&event->shown);
	}
}

/* The log that waits longest; NULL when the thread is to end. */
static struct log *next_log(struct resolver *resolver)
{
	struct log *log = NULL;
	pthread_mutex_lock(&resolver->lock);
	while (!resolver->n_logs && !resolver->stopping)
		pthread_cond_wait(&resolver->wanted, &resolver->lock);
	if (resolver->n_logs) {
		log = resolver->logs[0];
		resolver->n_logs--;
		for (unsigned i = 0; i < resolver->n_logs; i++)
			resolver->logs[i] = resolver->logs[i + 1];
	}
	pthread_mutex_unlock(&resolver->lock);
	return log;
}

static void *run(void *arg)
{
	struct resolver *resolver = arg;
	struct log *log;
	engine_thread_begin();
	atomic_store(&resolver->thread_id, gettid());
	symbol_thread_begin();
	while ((log = next_log(resolver))) {
		name_log(resolver, log);
		log_unref(log);
	}
	return NULL;
}

int resolver_start(struct resolver *resolver)
{
	resolver->stopping = false;
	return thread_start(&resolver->thread, "memwatch-names", run, resolver);
}

pid_t resolver_stop(struct resolver *resolver)
{
	pthread_mutex_lock(&resolver->lock);
	resolver->stopping = true;
	pthread_cond_signal(&resolver->wanted);
	pthread_mutex_unlock(&resolver->lock);
	pthread_join(resolver->thread, NULL);
	return atomic_exchange(&resolver->thread_id, 0);
}

int32_t resolver_thread(const struct resolver *resolver)
{
	return atomic_load(&resolver->thread_id);
}

static bool is_queued(const struct resolver *resolver, const struct log *log)
{
	for (unsigned i = 0; i < resolver->n_logs; i++)
		if (resolver->logs[i] == log)
			return true;
	return false;
}

void resolver_announce(struct resolver *resolver, struct log *log)
{
	if (log_announce(log))
		return;
	pthread_mutex_lock(&resolver->lock);
	if (!is_queued(resolver, log) && resolver->n_logs < LOGS) {
		log_ref(log);
		resolver->logs[resolver->n_logs++] = log;
		pthread_cond_signal(&resolver->wanted);
	}
	pthread_mutex_unlock(&resolver->lock);
}

bool resolver_hold(struct resolver *resolver, const struct timespec *deadline)
{
	return pthread_mutex_timedlock(&resolver->looking, deadline) == 0;
}

void resolver_release(struct resolver *resolver)
{
	pthread_mutex_unlock(&resolver->looking);
}
