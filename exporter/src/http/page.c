/*
 * page.c -- DESIGN: serves the live page, and gives it the token. HTTP thread.
 *
 * The files of exporter/page are in the library (exporter/embed makes exporter_page.h of them). They hold no secret, so
 * everybody who may reach us gets them. The page has a one-time code from the address that the process printed, behind
 * the `#`, which browsers do not send. It exchanges the code for the token, and keeps that in the tab's own storage.
 */
#include "page.h"

#include "reply.h"
#include "server.h"
#include "text/json.h"

#include "exporter_page.h"

static const char policy[] = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
			     "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
			     "require-trusted-types-for 'script'; trusted-types 'none'";

static enum MHD_Result reply_file(struct request *request, const char *type, const void *bytes, size_t n_bytes)
{
	union {
		const void *constant;
		void *plain;
	} pointer = { bytes }; /* the library takes a void *, and with MHD_RESPMEM_PERSISTENT only reads */
	if (request->query.n_parameters != 0)
		return reply_error(request, 400, "This address takes no query parameters.");
	struct MHD_Response *response = MHD_create_response_from_buffer(n_bytes, pointer.plain, MHD_RESPMEM_PERSISTENT);
	reply_header(response, "Content-Security-Policy", policy);
	reply_header(response, "Cross-Origin-Opener-Policy", "same-origin");
	return reply_queue(request, 200, type, response);
}

enum MHD_Result page_index(struct request *request)
{
	return reply_file(request, "text/html; charset=utf-8", page_index_html, sizeof page_index_html);
}

enum MHD_Result page_script(struct request *request)
{
	return reply_file(request, "text/javascript; charset=utf-8", page_app_js, sizeof page_app_js);
}

enum MHD_Result page_style(struct request *request)
{
	return reply_file(request, "text/css; charset=utf-8", page_style_css, sizeof page_style_css);
}

/* {"KEY":"VALUE"} */
static enum MHD_Result reply_secret(struct request *request, const char *key, const char *value)
{
	struct text text = { 0 };
	text_char(&text, '{');
	json_string(&text, key, value);
	text_string(&text, "}\n");
	enum MHD_Result result = reply_text(request, 200, REPLY_JSON, &text);
	text_fini(&text);
	return result;
}

enum MHD_Result page_token(struct request *request)
{
	struct memwatch_exporter *exporter = request->exporter;
	const char *code = access_code(&request->headers);
	if (request->query.n_parameters != 0)
		return reply_error(request, 400, "This address takes no query parameters.");
	if (request->head || !code || !codes_take(&exporter->codes, code))
		return reply_error(request, 401, "This code is unknown, was used already, or is older than an hour.");
	return reply_secret(request, "token", exporter->access.token);
}

enum MHD_Result page_code(struct request *request)
{
	char code[CODES_TEXT + 1] = "";
	if (request->query.n_parameters != 0)
		return reply_error(request, 400, "This address takes no query parameters.");
	if (!request->head && codes_make(&request->exporter->codes, code) < 0)
		return reply_error(request, 503, "There are no random numbers to make a code of.");
	return reply_secret(request, "code", code);
}
