/*
 * gzip.h -- smaller answers for clients that ask for them.
 */
#ifndef GZIP_H
#define GZIP_H

#include "text/text.h"

enum { GZIP_BYTES_MIN = 1024 }; /* less is not worth the header */

/* `text` compressed, in memory that the caller frees with text_fini. 0, or -ENOMEM: send it as it is. */
int gzip_text(const struct text *text, struct text *ret_compressed);

#endif
