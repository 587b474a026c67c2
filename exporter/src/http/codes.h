/*
 * codes.h -- one-time codes: what the printed address carries in place of the token.
 */
#ifndef CODES_H
#define CODES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { CODES_MAX = 8, CODES_BYTES = 16, CODES_TEXT = 2 * CODES_BYTES, CODES_LIFE_MS = 60 * 60 * 1000 };

struct codes {
	pthread_mutex_t mutex; /* guards all below: written by whoever makes a code and by the HTTP thread */
	struct {
		char text[CODES_TEXT + 1]; /* "": none, or used */
		int64_t end_ms;
	} codes[CODES_MAX];
	unsigned next; /* the place of the next code; the oldest gives way */
};

void codes_init(struct codes *codes);
void codes_fini(struct codes *codes);

/* Any thread: makes one. 0, or -EIO: no random numbers. */
int codes_make(struct codes *codes, char ret_text[CODES_TEXT + 1]);

/* HTTP thread: is it one that is good? Then it is good no longer. */
bool codes_take(struct codes *codes, const char *text);

#endif
