/*
 * gzip.c -- DESIGN: compresses an answer with zlib. HTTP thread; owns nothing between calls.
 *
 * At the fastest level: metrics shrink to a tenth with it, and the processor is somebody else's.
 */
#include "gzip.h"

#include <errno.h>
#include <limits.h>
#include <zlib.h>

enum { GZIP_WINDOW = 15 + 16, GZIP_MEMORY = 8 }; /* 16 more: with the header and trailer of gzip */

int gzip_text(const struct text *text, struct text *ret_compressed)
{
	struct text compressed = { 0 };
	z_stream stream = { 0 };
	if (text->n_bytes > UINT_MAX ||
	    deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW, GZIP_MEMORY, Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	size_t bound = deflateBound(&stream, text->n_bytes);
	int result = Z_MEM_ERROR;
	if (bound <= UINT_MAX && text_reserve(&compressed, bound) == 0) {
		stream.next_in = (Bytef *)text->data;
		stream.avail_in = (uInt)text->n_bytes;
		stream.next_out = (Bytef *)compressed.data;
		stream.avail_out = (uInt)bound;
		result = deflate(&stream, Z_FINISH);
		compressed.n_bytes = bound - stream.avail_out;
	}
	deflateEnd(&stream);
	if (result != Z_STREAM_END) {
		text_fini(&compressed);
		return -ENOMEM;
	}
	*ret_compressed = compressed;
	return 0;
}
