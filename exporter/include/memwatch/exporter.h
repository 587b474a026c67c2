/*
 * exporter.h -- serves a watcher's changes on a local port: Prometheus metrics, JSON feeds, a live page.
 *
 *   struct memwatch_exporter_options options;
 *   memwatch_exporter_options_init(&options);
 *   memwatch_exporter_open(watcher, &options, &exporter);
 *
 * Link with -lmemwatch_exporter -lmemwatch. Errors as in memwatch.h: -errno, with a sentence from memwatch_exporter_error().
 */
#ifndef MEMWATCH_EXPORTER_H
#define MEMWATCH_EXPORTER_H

#include <memwatch/memwatch.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct memwatch_exporter memwatch_exporter;

struct memwatch_exporter_options {
	size_t struct_bytes;       /* set by memwatch_exporter_options_init */
	const char *host;          /* "127.0.0.1"; another address needs a token and TLS, or `insecure` */
	uint16_t port;             /* 10764; 0: any free port, see memwatch_exporter_port */
	const char *unix_socket;   /* a path: listen there instead, mode 0600 */
	const char *token;         /* NULL: a random one; 16 to 128 characters of [A-Za-z0-9_-] */
	int metrics_need_token;    /* ask for the token (Authorization: Bearer) on /metrics too */
	const char *tls_cert_file, *tls_key_file; /* PEM; both or none */
	int insecure;              /* serve another address than loopback without TLS: everybody there can read */
	uint32_t connection_limit; /* 128 */
	uint32_t feed_limit;       /* 32 streaming or waiting clients */
	uint32_t variable_limit;   /* 100 variables with labels of their own, the rest summed; at most 10,000 */
	uint32_t heartbeat_ms;     /* 15,000 */
	const char *allowed_host;  /* one more name that the Host header may have, NULL: none */
	const char *runtime_dir;   /* where the 0600 file for discovery goes; NULL: $XDG_RUNTIME_DIR/memwatch or /tmp/memwatch-<uid>; "": none */
	const char *service;       /* a name for this process in the discovery file and on the page, NULL: the program's */
};

MEMWATCH_API void memwatch_exporter_options_init(struct memwatch_exporter_options *options);

/*
 * Starts to serve. -EADDRINUSE the port is taken, -EACCES, -EINVAL. The watcher must outlive the exporter. Blocks no longer than bind and listen take.
 */
MEMWATCH_API int memwatch_exporter_open(memwatch *watcher, const struct memwatch_exporter_options *options,
					memwatch_exporter **ret_exporter);

/* Stops: clients are cut, threads joined, descriptors closed, the discovery file removed. Milliseconds. NULL is allowed. */
MEMWATCH_API void memwatch_exporter_close(memwatch_exporter *exporter);

MEMWATCH_API uint16_t memwatch_exporter_port(const memwatch_exporter *exporter);
MEMWATCH_API const char *memwatch_exporter_token(const memwatch_exporter *exporter);
MEMWATCH_API const char *memwatch_exporter_url(const memwatch_exporter *exporter); /* with the token */
MEMWATCH_API const char *memwatch_exporter_error(void);

#ifdef __cplusplus
}
#endif
#endif
