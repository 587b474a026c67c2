/*
 * routes.c -- DESIGN: takes requests from libmicrohttpd, checks them, finds who answers.
 *
 * One daemon with one internal thread on epoll. A thread a connection would be a thousand threads in somebody's
 * service. It is named "memwatch-http" when the first connection comes, since libmicrohttpd does not let it be named
 * earlier. The signals of the process are blocked while the thread is created, so that the host's handlers never run on
 * it.
 *
 * What libmicrohttpd 0.9.75 does not check is checked here: missing and repeated Host headers, absolute targets, %00,
 * other methods, bodies, names of headers, sizes. What it does check it refuses with a body of its own. So it is told
 * to be lenient, and has memory for twice what we take; more would be held by each client that streams. The target is
 * taken as it came on the wire, before libmicrohttpd decodes it.
 *
 * A request is refused before anything looks at what it asks for. Addresses are compared byte for byte.
 */
#include "routes.h"

#include "clock.h"
#include "feeds/poll.h"
#include "feeds/stream.h"
#include "http/page.h"
#include "http/peer.h"
#include "http/reply.h"
#include "metrics/metrics.h"
#include "server.h"
#include "status.h"
#include "values.h"

#include <memwatch/reader.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>

enum { HEADER_BYTES_MAX = 16 * 1024, CONNECTION_BYTES = 32 * 1024, IDLE_TIMEOUT_S = 30 };

/* --- routes ----------------------------------------------------------------------------------------------------- */

struct route {
	const char *path;
	enum handler handler;
	enum MHD_Result (*reply)(struct request *request);
	/* METRICS: as the options say. PAGE: open, and a link from elsewhere may lead there. */
	enum { WITH_TOKEN, OPEN, METRICS, PAGE } access;
};

static const struct route routes[] = {
	{ "/", HANDLER_PAGE, page_index, PAGE },
	{ "/app.js", HANDLER_PAGE, page_script, OPEN },
	{ "/style.css", HANDLER_PAGE, page_style, OPEN },
	{ "/metrics", HANDLER_METRICS, metrics_reply, METRICS },
	{ "/-/healthy", HANDLER_HEALTH, status_healthy, OPEN },
	{ "/-/ready", HANDLER_HEALTH, status_ready, OPEN },
	{ "/api/v1/token", HANDLER_PAGE, page_token, OPEN },
	{ "/api/v1/code", HANDLER_PAGE, page_code, WITH_TOKEN },
	{ "/api/v1/status", HANDLER_STATUS, status_reply, WITH_TOKEN },
	{ "/api/v1/regions", HANDLER_REGIONS, status_regions, WITH_TOKEN },
	{ "/api/v1/events", HANDLER_EVENTS, poll_reply, WITH_TOKEN },
	{ "/api/v1/events/stream", HANDLER_STREAM, stream_reply, WITH_TOKEN },
};

/* Those that go on after their path. */
static const struct route open_routes[] = {
	{ VALUES_KEY_PATH, HANDLER_VALUES, values_by_key, WITH_TOKEN },
	{ VALUES_REGION_PATH, HANDLER_VALUES, values_of_region, WITH_TOKEN },
};

static const struct route *find_route(const char *path)
{
	for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
		if (strcmp(routes[i].path, path) == 0)
			return &routes[i];
	}
	for (size_t i = 0; i < sizeof open_routes / sizeof open_routes[0]; i++) {
		if (strncmp(open_routes[i].path, path, strlen(open_routes[i].path)) == 0)
			return &open_routes[i];
	}
	return NULL;
}

/* --- checks ----------------------------------------------------------------------------------------------------- */

/*
 * Letters, digits, and what else a name may hold: to libmicrohttpd "Content-Length " is another header than
 * Content-Length, to the proxy in front perhaps not, and so a body passes as the next request.
 */
static bool is_token(const char *name)
{
	return *name != '\0' && name[strspn(name, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
						  "ABCDEFGHIJKLMNOPQRSTUVWXYZ")] == '\0';
}

/* A header that begins like one that says where a body ends: libmicrohttpd appends a folded line to the name. */
static bool is_folded_length(const char *name)
{
	static const char *const names[] = { "Content-Length", "Transfer-Encoding" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		size_t n = strlen(names[i]);
		if (strncasecmp(name, names[i], n) == 0 && name[n] != '\0')
			return true;
	}
	return false;
}

/* What a proxy adds. Whoever asks through it is not the process at the other end of the connection. */
static bool is_of_a_proxy(const char *name)
{
	static const char *const names[] = { "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (strcasecmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

static enum MHD_Result take_header(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_bytes,
				   const char *value, size_t value_bytes)
{
	struct request *request = cls;
	struct access_headers *headers = &request->headers;
	const struct {
		const char *name;
		const char **place;
	} wanted[] = {
		{ "Host", &headers->host },
		{ "Origin", &headers->origin },
		{ "Sec-Fetch-Site", &headers->fetch_site },
		{ "Sec-Fetch-Mode", &headers->fetch_mode },
		{ "Authorization", &headers->authorization },
		{ "Accept", &headers->accept },
		{ "Accept-Encoding", &headers->accept_encoding },
		{ "If-None-Match", &headers->if_none_match },
		{ "Last-Event-ID", &headers->last_event_id },
	};

	(void)kind;
	wire_header(&request->wire, name, name_bytes, value, value_bytes);
	if (!value) {
		value = "";
		value_bytes = 0;
	}
	headers->total_bytes += name_bytes + value_bytes + 4;
	headers->bad_name |= !is_token(name) || strlen(name) != name_bytes || is_folded_length(name);
	headers->bad_value |= strlen(value) != value_bytes || strpbrk(value, "\r\n");
	headers->forwarded |= is_of_a_proxy(name);
	headers->n_origins += strcasecmp(name, "Origin") == 0;
	headers->n_hosts += strcasecmp(name, "Host") == 0;
	headers->n_authorizations += strcasecmp(name, "Authorization") == 0;
	if ((strcasecmp(name, "Content-Length") == 0 && strcmp(value, "0") != 0) ||
	    strcasecmp(name, "Transfer-Encoding") == 0)
		headers->has_body = true;
	for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
		if (strcasecmp(name, wanted[i].name) == 0 && !*wanted[i].place)
			*wanted[i].place = value;
	}
	return MHD_YES;
}

/* Is the authority of an absolute address, which ends at its path, the Host? Without a Host it may be any. */
static bool names_host(const char *authority, const char *host)
{
	size_t n = strcspn(authority, "/?");
	return !host || (strlen(host) == n && strncasecmp(authority, host, n) == 0);
}

/* The status to refuse with, and why; 0: go on. */
static unsigned check_request(const struct request *request, const char *method, const char **ret_sentence)
{
	if (request->wrong) {
		*ret_sentence = request->wrong;
		return request->wrong_status;
	}
	if (request->authority && !names_host(request->authority, request->headers.host)) {
		*ret_sentence = "The address names another host than the Host header.";
		return 400;
	}
	if (request->headers.bad_name) {
		*ret_sentence = "The name of a header holds a character that none may hold.";
		return 400;
	}
	if (request->headers.bad_value) {
		*ret_sentence = "The address, or the value of a header, holds a character that none may hold.";
		return 400;
	}
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
		*ret_sentence = "Only GET and HEAD are served.";
		return 405;
	}
	if (request->headers.has_body) {
		*ret_sentence = "Requests with a body are not served.";
		return 413;
	}
	if (request->headers.total_bytes > HEADER_BYTES_MAX) {
		*ret_sentence = "The headers are longer than 16 KiB.";
		return 431;
	}
	return 0;
}

/* Is it a process of this machine, of a user who may read values, that asks for itself? */
static bool peer_may_read(const struct request *request)
{
	const struct access *access = &request->exporter->access;
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	uid_t uid;
	return access->local && !request->headers.forwarded && info && peer_uid(info->connect_fd, &uid) == 0 &&
	       access_user_may_read(access, uid);
}

/* Decides about `request->trusted`, too. */
static bool may_read(struct request *request, const struct route *route)
{
	const struct access *access = &request->exporter->access;
	request->trusted = access_has_token(access, &request->headers);
	if (route->access != METRICS)
		return request->trusted || route->access != WITH_TOKEN;
	if (request->trusted || access->metrics == ACCESS_METRICS_TOKEN)
		return request->trusted;
	if (access->metrics == ACCESS_METRICS_OPEN)
		return true;
	request->trusted = peer_may_read(request);
	return access->local;
}

static enum MHD_Result answer(struct request *request, const char *method)
{
	const struct route *route = !request->wrong ? find_route(request->query.path) : NULL;
	const char *sentence;
	unsigned status = check_request(request, method, &sentence);
	if (route)
		request->handler = route->handler;
	if (status == 0 && request->handler != HANDLER_HEALTH)
		status = (unsigned)access_check_host(&request->exporter->access, &request->headers, &sentence);
	if (status == 0)
		status = (unsigned)access_check_origin(&request->exporter->access, &request->headers,
						       route && route->access == PAGE, &sentence);
	if (status != 0)
		return reply_error(request, status, sentence);
	if (!route)
		return reply_error(request, 404, "There is nothing at this address; / leads to what there is.");
	if (may_read(request, route))
		return route->reply(request);
	return reply_error(request, 401, "This needs the token: send it as Authorization: Bearer TOKEN.");
}

/* --- libmicrohttpd's calls -------------------------------------------------------------------------------------- */

/* Proxies and old clients send whole addresses, "http://host/path": returns where the path begins. */
static char *take_authority(struct request *request)
{
	bool http = strncmp(request->uri, "http://", 7) == 0, https = strncmp(request->uri, "https://", 8) == 0;
	if (!http && !https)
		return request->uri;
	char *authority = request->uri + (http ? 7 : 8);
	request->authority = authority;
	return authority + strcspn(authority, "/?");
}

/* The target as it came; begins a request. */
static void *begin_request(void *cls, const char *uri, struct MHD_Connection *connection)
{
	size_t n_bytes = strlen(uri);
	struct request *request;
	bool too_long = n_bytes > QUERY_URI_MAX;
	n_bytes = too_long ? 0 : n_bytes;
	request = calloc(1, sizeof *request + n_bytes + 1);
	if (!request)
		return NULL;
	request->exporter = cls;
	request->counts = &request->exporter->requests;
	request->connection = connection;
	request->handler = HANDLER_OTHER;
	wire_address(&request->wire, uri);
	memcpy(request->uri, uri, n_bytes);
	char *target = take_authority(request);
	if (too_long) {
		request->wrong = "The address is longer than 2048 bytes.";
		request->wrong_status = 414;
	} else {
		request->wrong = query_parse(target, &request->query);
		request->wrong_status = 400;
	}
	return request;
}

static struct connection *entry_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	return !info ? NULL : info->socket_context;
}

/* Reads the headers, and whether they and the first line are all that came. */
static void take_head(struct request *request, const char *method, const char *version)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);

	wire_version(&request->wire, version);
	MHD_get_connection_values_n(request->connection, MHD_HEADER_KIND, take_header, request);
	wire_finish(&request->wire, method, info ? info->header_size : 0);
	request->headers.bad_value |= request->wire.cut;
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
			      const char *version, const char *upload_data, size_t *upload_data_size, void **con_cls)
{
	struct memwatch_exporter *exporter = cls;
	struct request *request = *con_cls;
	(void)url, (void)upload_data;
	if (!request)
		return MHD_NO;
	if (!request->announced) {
		request->announced = true;
		request->head = strcmp(method, "HEAD") == 0;
		connections_busy(&exporter->connections, entry_of(connection), clock_now_ms());
		take_head(request, method, version);
		if (!access_must_close(&request->headers) && !request->wrong)
			return MHD_YES;
	}
	*upload_data_size = 0;
	enum MHD_Result result = answer(request, method);
	if (request->feed)
		connections_feed(&exporter->connections, entry_of(connection));
	else
		connections_busy(&exporter->connections, entry_of(connection), clock_now_ms());
	nudge_give(&exporter->pump.nudge);
	return result;
}

static void end_request(void *cls, struct MHD_Connection *connection, void **con_cls,
			enum MHD_RequestTerminationCode code)
{
	struct memwatch_exporter *exporter = cls;
	struct request *request = *con_cls;
	connections_idle(&exporter->connections, entry_of(connection), clock_now_ms());
	nudge_give(&exporter->pump.nudge);
	if (!request)
		return;
	reply_done(request);
	feeds_remove(request->feed, code == MHD_REQUEST_TERMINATED_TIMEOUT_REACHED);
	free(request);
	*con_cls = NULL;
}

static void connection_changed(void *cls, struct MHD_Connection *connection, void **socket_context,
			       enum MHD_ConnectionNotificationCode code)
{
	struct memwatch_exporter *exporter = cls;
	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		connections_remove(&exporter->connections, *socket_context);
		*socket_context = NULL;
		return;
	}
	if (!exporter->named) {
		exporter->named = true;
		pthread_setname_np(pthread_self(), "memwatch-http");
		memwatch_thread_own();
	}
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	if (info)
		*socket_context = connections_add(&exporter->connections, info->connect_fd, clock_now_ms());
	nudge_give(&exporter->pump.nudge);
}

/* The library never prints: what libmicrohttpd has to say about clients is in the metrics. */
static void discard_message(void *cls, const char *format, va_list arguments)
{
	(void)cls, (void)format, (void)arguments;
}

/* --- the daemon ------------------------------------------------------------------------------------------------- */

static struct MHD_Daemon *start_daemon(memwatch_exporter *exporter, uint32_t connection_limit)
{
	unsigned flags = MHD_USE_AUTO_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME;
	struct MHD_OptionItem tls[] = {
		{ MHD_OPTION_HTTPS_MEM_CERT, 0, exporter->tls_cert },
		{ MHD_OPTION_HTTPS_MEM_KEY, 0, exporter->tls_key },
		{ MHD_OPTION_HTTPS_PRIORITIES, 0,
		  (char[]){ "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
			    ":-RSA:-AES-128-CBC:-AES-256-CBC:-SHA1" } },
		{ MHD_OPTION_END, 0, NULL },
	};
	struct MHD_OptionItem *more = exporter->access.tls ? tls : &tls[3];
	if (exporter->access.tls)
		flags |= MHD_USE_TLS;
	return MHD_start_daemon(flags, 0, NULL, NULL, handle, exporter, MHD_OPTION_EXTERNAL_LOGGER, discard_message,
				NULL, MHD_OPTION_LISTEN_SOCKET, exporter->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
				(unsigned)connection_limit, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_TIMEOUT_S,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
				MHD_OPTION_STRICT_FOR_CLIENT, 0, MHD_OPTION_URI_LOG_CALLBACK, begin_request, exporter,
				MHD_OPTION_NOTIFY_COMPLETED, end_request, exporter, MHD_OPTION_NOTIFY_CONNECTION,
				connection_changed, exporter, MHD_OPTION_ARRAY, more, MHD_OPTION_END);
}

/*
 * All signals but those that a thread causes itself: blocked, they would kill the process instead, and the library
 * could not tell who writes beside a watched variable on the heap.
 */
static void fill_foreign_signals(sigset_t *ret_set)
{
	static const int own[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	sigfillset(ret_set);
	for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
		sigdelset(ret_set, own[i]);
}

/* A daemon that does not start has closed the listening socket, or not: its number may be another thread's by now. */
static void forget_closed_socket(struct memwatch_exporter *exporter, const struct stat *before)
{
	struct stat now;
	if (fstat(exporter->listen_fd, &now) < 0 || now.st_dev != before->st_dev || now.st_ino != before->st_ino)
		exporter->listen_fd = -1;
}

int routes_start(memwatch_exporter *exporter, uint32_t connection_limit)
{
	sigset_t foreign, before;
	struct stat socket = { 0 };
	int error = 0;
	fill_foreign_signals(&foreign);
	pthread_sigmask(SIG_BLOCK, &foreign, &before);
	fstat(exporter->listen_fd, &socket);
	errno = 0;
	exporter->daemon = start_daemon(exporter, connection_limit);
	if (!exporter->daemon) {
		error = errno > 0 ? -errno : -EIO;
		forget_closed_socket(exporter, &socket);
	} else {
		error = pump_start(&exporter->pump);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error && exporter->daemon)
		routes_stop(exporter);
	return error;
}

void routes_stop(memwatch_exporter *exporter)
{
	MHD_stop_daemon(exporter->daemon);
	exporter->daemon = NULL;
	exporter->listen_fd = -1;
}
