/*
 * exporter.h -- serves a watcher's changes on a local port: Prometheus metrics, JSON feeds, a live page.
 *
 *   struct memwatch_exporter_options options;
 *   memwatch_exporter_options_init(&options);
 *   memwatch_exporter_open(watcher, &options, &exporter);
 *
 * Link with -lmemwatch_exporter -lmemwatch. Errors as in memwatch.h: -errno, with a sentence from
 * memwatch_exporter_error().
 */
#ifndef MEMWATCH_EXPORTER_H
#define MEMWATCH_EXPORTER_H

#include <memwatch/memwatch.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct memwatch_exporter memwatch_exporter;

struct memwatch_exporter_options {
	size_t struct_bytes;     /* set by memwatch_exporter_options_init */
	const char *host;        /* "127.0.0.1"; another address needs a token and TLS, or `insecure` */
	uint16_t port;           /* 10764; 0: any free port, see memwatch_exporter_port */
	const char *unix_socket; /* a path: listen there instead, mode 0600 */
	const char *token;       /* NULL: a random one; 16 to 128 characters of [A-Za-z0-9_-] */
	int metrics_need_token;  /* ask for the token (Authorization: Bearer) on /metrics too */
	const char *tls_cert_file, *tls_key_file; /* PEM; both or none */
	int insecure;              /* serve another address than loopback without TLS: everybody there can read */
	uint32_t connection_limit; /* 128 */
	uint32_t feed_limit;       /* 32 streaming or waiting clients */
	uint32_t variable_limit;   /* 100 variables with labels of their own, the rest summed; at most 10,000 */
	uint32_t heartbeat_ms;     /* 15,000 */
	const char *allowed_host;  /* one more name that the Host header may have, NULL: none */
	const char *runtime_dir; /* of the discovery file, mode 0600; NULL: the user's runtime directory; "": no file */
	const char *service; /* a name for this process in the discovery file and on the page, NULL: the program's */
};

MEMWATCH_API void memwatch_exporter_options_init(struct memwatch_exporter_options *options);

/*
 * Starts to serve; `options` NULL for the defaults. -EINVAL an option out of range; -EADDRINUSE the port or socket is
 * taken; -EACCES an address that others reach, without token and TLS; other errors of the system. The watcher must
 * outlive the exporter. Blocks no longer than bind and listen take.
 *
 * Two threads are started, "memwatch-http" and "memwatch-pump", on which no signal handler of the process runs. A
 * forked child has neither: there the handle does nothing, and the sockets are closed.
 */
MEMWATCH_API int memwatch_exporter_open(memwatch *watcher, const struct memwatch_exporter_options *options,
					memwatch_exporter **ret_exporter);

/*
 * Stops: clients are cut, threads joined, descriptors closed, the discovery file removed. Milliseconds. NULL is
 * allowed.
 */
MEMWATCH_API void memwatch_exporter_close(memwatch_exporter *exporter);

/* 0 for a Unix socket. */
MEMWATCH_API uint16_t memwatch_exporter_port(const memwatch_exporter *exporter);

/*
 * Strings that live as long as the exporter. The address is that of the live page, with the token; "" for a Unix
 * socket.
 */
MEMWATCH_API const char *memwatch_exporter_token(const memwatch_exporter *exporter);
MEMWATCH_API const char *memwatch_exporter_url(const memwatch_exporter *exporter);

/* The sentence of this thread's last failed call. Never NULL. Valid until the thread's next failing call. */
MEMWATCH_API const char *memwatch_exporter_error(void);

#ifdef __cplusplus
}
#endif
#endif
