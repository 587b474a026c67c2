/*
 * vanish.h -- finds regions whose memory has gone, where nobody writes.
 */
#ifndef VANISH_H
#define VANISH_H

#include "engine.h"

/* Looks at a few regions, which end as lost when their memory has gone. Once a full pass, after all was read. */
void vanish_check(struct engine *engine);

#endif
