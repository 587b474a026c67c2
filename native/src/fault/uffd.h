/*
 * uffd.h -- what step.c's trap asks of the backend uffd.
 */
#ifndef UFFD_H
#define UFFD_H

#include <stdint.h>

/* Arms one page of uffd's again. Signal-safe. */
void uffd_rearm(uint64_t page);

#endif
