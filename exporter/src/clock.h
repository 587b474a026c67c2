/*
 * clock.h -- the time by which the exporter waits: CLOCK_MONOTONIC. Any thread.
 */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>

int64_t clock_now_ms(void);
uint64_t clock_now_ns(void);

#endif
