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
	/* Set by memwatch_exporter_options_init. */
	size_t struct_bytes;
	/* "127.0.0.1"; another address needs a token and TLS, or `insecure`. "::" is all of IPv6 and of IPv4. */
	const char *host;
	/* 10764, or where that is in use any free one, as for 0; see memwatch_exporter_port, port_exact. */
	uint16_t port;
	/* A path: listen there instead, mode 0600. */
	const char *unix_socket;
	/* NULL: a random one; 32 to 128 characters of [A-Za-z0-9_-]. */
	const char *token;
	/*
	 * Who gets /metrics without the token. By default every process of this machine, if no other can reach the
	 * port, and nobody if others can. What the variables hold is left out then, but for processes of our own user,
	 * of root, and of `metrics_users`: names or numbers with commas between, such as "prometheus,1001".
	 * `metrics_need_token`: nobody. `metrics_open`: whoever reaches the port, values included.
	 */
	int metrics_need_token;
	int metrics_open;
	const char *metrics_users;
	/* PEM; both or none. */
	const char *tls_cert_file, *tls_key_file;
	/* Serve another address than loopback without TLS: whoever hears the network hears the token and all values. */
	int insecure;
	/* 128 */
	uint32_t connection_limit;
	/* 32 streaming or waiting clients. */
	uint32_t feed_limit;
	/* 100 variables with labels of their own, the rest summed; at most 10,000. */
	uint32_t variable_limit;
	/* 15,000 */
	uint32_t heartbeat_ms;
	/* One more name that the Host header may have, or several with commas between; NULL: none. */
	const char *allowed_host;
	/* Of the discovery file, mode 0600; NULL: the user's runtime directory; "": no file. */
	const char *runtime_dir;
	/* A name for this program, on the page, in the discovery file and the metrics; NULL: MEMWATCH_SERVICE, else the
	 * program's. */
	const char *service;
	/* Which of the service's processes this is; NULL: MEMWATCH_WORKER, else none. */
	const char *worker;
	/* More about it, "zone=eu,tier=web"; NULL: MEMWATCH_LABELS, else none. */
	const char *labels;
	/* 1: the port or none, 10764 too. Every other port is exact anyway. */
	int port_exact;
	/* 0 */
	int reserved;
};

/* Fills in the defaults. */
MEMWATCH_API void memwatch_exporter_options_init_sized(struct memwatch_exporter_options *options, size_t struct_bytes);
MEMWATCH_INLINE void memwatch_exporter_options_init(struct memwatch_exporter_options *options)
{
	memwatch_exporter_options_init_sized(options, sizeof(struct memwatch_exporter_options));
}

/*
 * Starts to serve; `options` NULL for the defaults. -EINVAL an option out of range; -EADDRINUSE the port or socket is
 * taken; -EACCES an address that others reach, without token and TLS; other errors of the system. Either
 * may be closed first: see CALLS in memwatch.h. Blocks no longer than bind and listen take.
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

/* Lives as long as the exporter. */
MEMWATCH_API const char *memwatch_exporter_token(const memwatch_exporter *exporter);

/*
 * The address of the live page for one browser, once: it ends in a code that is good for one use, for an hour at most.
 * Each call makes a new one; the string is good until the eighth call after. "" for a Unix socket.
 */
MEMWATCH_API const char *memwatch_exporter_url(memwatch_exporter *exporter);

/*
 * Lives as long as the exporter. The path of the discovery file; "": there is none, since none was asked for, or since
 * it could not be written where the user's are.
 */
MEMWATCH_API const char *memwatch_exporter_discovery_file(const memwatch_exporter *exporter);

/* The sentence of this thread's last failed call. Never NULL. Valid until the thread's next failing call. */
MEMWATCH_API const char *memwatch_exporter_error(void);

#ifdef __cplusplus
}
#endif
#endif
