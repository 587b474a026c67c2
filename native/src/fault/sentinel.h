/*
 * sentinel.h -- tells at once when the process is about to change a signal's action: a processor breakpoint at the C
 * library's sigaction, which signal(3) and all its kin call. It takes one of the four.
 *
 *   who may run together    everything under the engine's lock; what is told runs in a handler
 */
#ifndef SENTINEL_H
#define SENTINEL_H

#include <stdbool.h>
#include <stdint.h>

/*
 * From now on `before_change` (not for SIGTRAP, whose events fall silent by themselves) is called, in a handler on the
 * thread that is about to change the action of `signal`, before it does; then the worker is woken. 0, or -errno where
 * there is no breakpoint to be had: then changes are found when somebody looks.
 */
int sentinel_watch(int signal, void (*before_change)(void));
void sentinel_unwatch(int signal);
/* Gives the breakpoint up for another purpose, until it is asked for the next time. False when it had none. */
bool sentinel_yield(void);
/*
 * Now and then, after trap_hold: opens new events when the host has closed them. When to come again at the latest, 0:
 * no wish.
 */
uint64_t sentinel_tick(uint64_t now_ns);
bool sentinel_is_on(void);
/* In the child of a fork: it has none. */
void sentinel_fork_child(void);

#endif
