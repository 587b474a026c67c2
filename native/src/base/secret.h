/*
 * secret.h -- does a name look like a secret's? Then its values had better stay inside. Any thread; no state.
 */
#ifndef SECRET_H
#define SECRET_H

#include <stdbool.h>

/*
 * A part of the name (api_key, apiKey, "session.token") is a word for secrets, or "password" and the like stand
 * anywhere in it.
 */
bool secret_looks_like(const char *name);

#endif
