/*
 * codes.c -- DESIGN: a browser keeps every address that it opens, on disk and for long, and logs keep what was printed.
 * So the printed address holds a code that is good once, for an hour at most. The page exchanges it for the token.
 *
 * Any thread makes codes, the HTTP thread takes them. CODES_MAX are good at a time; a further one replaces the oldest.
 */
#include "codes.h"

#include "access.h"
#include "clock.h"

#include <errno.h>
#include <string.h>

void codes_init(struct codes *codes)
{
	memset(codes, 0, sizeof *codes);
	pthread_mutex_init(&codes->mutex, NULL);
}

void codes_fini(struct codes *codes)
{
	pthread_mutex_destroy(&codes->mutex);
	explicit_bzero(codes->codes, sizeof codes->codes);
}

int codes_make(struct codes *codes, char ret_text[CODES_TEXT + 1])
{
	char text[CODES_TEXT + 1];
	int error = access_random(text, CODES_BYTES);
	if (error)
		return error;
	pthread_mutex_lock(&codes->mutex);
	memcpy(codes->codes[codes->next].text, text, sizeof text);
	codes->codes[codes->next].end_ms = clock_now_ms() + CODES_LIFE_MS;
	codes->next = (codes->next + 1) % CODES_MAX;
	pthread_mutex_unlock(&codes->mutex);
	memcpy(ret_text, text, sizeof text);
	return 0;
}

bool codes_take(struct codes *codes, const char *text)
{
	bool good = false;
	if (strlen(text) != CODES_TEXT)
		return false;
	pthread_mutex_lock(&codes->mutex);
	for (unsigned i = 0; i < CODES_MAX; i++) {
		char *code = codes->codes[i].text;
		if (*code && access_equals(code, text, CODES_TEXT)) {
			good = codes->codes[i].end_ms > clock_now_ms();
			explicit_bzero(code, CODES_TEXT + 1);
		}
	}
	pthread_mutex_unlock(&codes->mutex);
	return good;
}
