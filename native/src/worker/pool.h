/*
 * pool.h -- the names of functions and files, each kept once, for as long as the process lives. The resolver's thread
 * alone.
 */
#ifndef POOL_H
#define POOL_H

/* The text as it is kept; "" for NULL, and when the pool is full. */
const char *pool_intern(const char *text);

#endif
