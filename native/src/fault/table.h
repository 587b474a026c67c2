/*
 * table.h -- the backends. For the front alone: no file of this folder sees another by it.
 */
#ifndef TABLE_H
#define TABLE_H

#include "../base/backend.h"

/* A row each, in the order in which `auto` tries them; those with a hazard it never takes. */
#define FAULT_BACKENDS(row) row(uffd) row(poll) row(mprotect)

#define FAULT_BACKEND_DECLARE(name) extern const struct backend fault_##name;
FAULT_BACKENDS(FAULT_BACKEND_DECLARE)

#endif
