/*
 * page.c -- DESIGN: serves the live page.
 *
 * HTTP thread. The three files of exporter/page are in the library (embed.py writes them into
 * exporter_page.h). The token comes once, in the address; from then on it is in a cookie that scripts cannot read and
 * other sites' requests do not carry. The page takes it out of the address bar itself: a redirect would lose the cookie
 * when the link was followed from another site.
 */
#include "page.h"

#include "reply.h"
#include "server.h"

#include "exporter_page.h"

#include <stdio.h>

static const char policy[] = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
			     "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static enum MHD_Result reply_file(struct request *request, unsigned status, const char *type, const void *bytes,
				  size_t n_bytes, const char *cookie)
{
	union {
		const void *constant;
		void *plain;
	} pointer = { bytes }; /* the library takes a void *, and with MHD_RESPMEM_PERSISTENT only reads */
	struct MHD_Response *response = MHD_create_response_from_buffer(n_bytes, pointer.plain, MHD_RESPMEM_PERSISTENT);

	reply_header(response, "Content-Security-Policy", policy);
	if (cookie)
		reply_header(response, "Set-Cookie", cookie);
	return reply_queue(request, status, type, response);
}

enum MHD_Result page_index(struct request *request)
{
	static const char *const names[] = { "token", NULL };
	const struct access *access = &request->exporter->access;
	const char *wrong = query_check(&request->query, names, NULL);
	char cookie[ACCESS_TOKEN_MAX + ACCESS_COOKIE_MAX + 64];

	if (wrong)
		return reply_error(request, 400, wrong);
	snprintf(cookie, sizeof cookie, "%s=%s; Path=/; HttpOnly; SameSite=Strict%s", access->cookie, access->token,
		 access->tls ? "; Secure" : "");
	return reply_file(request, 200, "text/html; charset=utf-8", page_index_html, sizeof page_index_html,
			  query_find(&request->query, "token") ? cookie : NULL);
}

enum MHD_Result page_script(struct request *request)
{
	return reply_file(request, 200, "text/javascript; charset=utf-8", page_app_js, sizeof page_app_js, NULL);
}

enum MHD_Result page_style(struct request *request)
{
	return reply_file(request, 200, "text/css; charset=utf-8", page_style_css, sizeof page_style_css, NULL);
}

enum MHD_Result page_no_token(struct request *request)
{
	static const char html[] = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>memwatch</title>"
				   "<h1>memwatch</h1><p>This page needs the token. Open the address that the process "
				   "gave when it began to serve; it ends in <code>/?token=…</code>.</p>"
				   "<p><a href=\"/metrics\">/metrics</a></p></html>\n";
	if (query_accept(request->headers.accept, "text/html") <=
	    query_accept(request->headers.accept, "application/json"))
		return reply_error(
			request, 401,
			"This needs the token: open the address with ?token=, or send Authorization: Bearer.");
	return reply_file(request, 401, "text/html; charset=utf-8", html, sizeof html - 1, NULL);
}
