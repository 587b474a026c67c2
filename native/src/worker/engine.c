/*
 * engine.c -- the lock that watchers and the worker share, and what its threads begin with. Any thread but a handler's.
 *
 * A mutex is not fair: a worker that lets it go and takes it again at once would keep everybody out for a whole pass.
 * So those who wait count themselves, and the worker steps aside until they had it.
 */
#define _GNU_SOURCE
#include "engine.h"

#include "../base/syscalls.h"

#include <sched.h>

void engine_lock(struct engine *engine)
{
	atomic_fetch_add(&engine->n_waiting, 1);
	pthread_mutex_lock(&engine->lock);
	atomic_fetch_sub(&engine->n_waiting, 1);
}

void engine_unlock(struct engine *engine)
{
	pthread_mutex_unlock(&engine->lock);
}

void engine_yield(struct engine *engine)
{
	if (!atomic_load(&engine->n_waiting))
		return;
	pthread_mutex_unlock(&engine->lock);
	for (int i = 0; i < 1000 && atomic_load(&engine->n_waiting); i++)
		sched_yield();
	pthread_mutex_lock(&engine->lock);
}

const struct backend *engine_backend_of(const struct engine *engine, uint64_t address)
{
	const struct backend *found = NULL;
	for (unsigned b = 0; b < engine->n_backends; b++)
		if ((!found || found->turns) && page_set_has(engine->backends[b]->pages, address))
			found = engine->backends[b];
	return found;
}

void engine_thread_begin(void)
{
	if (!syscall_refused(SYSCALL_SCHED_SETSCHEDULER) && sched_getscheduler(0) == SCHED_OTHER)
		sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){ 0 });
}
