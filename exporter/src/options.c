/*
 * options.c -- DESIGN: the defaults, and what is refused before anything is opened. On the opening thread; owns
 * nothing.
 *
 * An address that others can reach is never served by mistake: it needs a token and TLS, or the word `insecure`.
 */
#include <memwatch/reader.h>

#include "options.h"

#include "error.h"
#include "http/access.h"
#include "http/listen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PORT_DEFAULT = 10764, VARIABLE_LIMIT_MAX = 10000, CONNECTION_LIMIT_MAX = 65536, PEM_MAX = 1 << 20 };

static const struct memwatch_exporter_options defaults = {
	.struct_bytes = sizeof defaults,
	.host = "127.0.0.1",
	.port = PORT_DEFAULT,
	.connection_limit = 128,
	.feed_limit = 32,
	.variable_limit = 100,
	.heartbeat_ms = 15000,
};

void memwatch_exporter_options_init_sized(struct memwatch_exporter_options *options, size_t struct_bytes)
{
	struct memwatch_exporter_options ours = defaults;
	ours.struct_bytes = struct_bytes;
	if (options)
		memwatch_struct_write(options, struct_bytes, &ours, sizeof ours);
}

static int check_limits(const struct memwatch_exporter_options *options)
{
	if (options->connection_limit < 2 || options->connection_limit > CONNECTION_LIMIT_MAX)
		return exporter_error(-EINVAL, "connection_limit must be 2 to %d", CONNECTION_LIMIT_MAX);
	if (options->feed_limit >= options->connection_limit)
		return exporter_error(
			-EINVAL, "feed_limit must be less than connection_limit, so that scrapes always get through");
	if (options->variable_limit > VARIABLE_LIMIT_MAX)
		return exporter_error(-EINVAL, "variable_limit must be at most %d", VARIABLE_LIMIT_MAX);
	if (options->heartbeat_ms < 100 || options->heartbeat_ms > 3600000)
		return exporter_error(-EINVAL, "heartbeat_ms must be 100 to 3,600,000");
	return 0;
}

static int check_address(const struct memwatch_exporter_options *options)
{
	if (options->unix_socket)
		return 0;
	if (!options->host)
		return exporter_error(-EINVAL, "host is missing: give an address such as 127.0.0.1, or a unix_socket");
	int loopback = listen_is_loopback(options->host);
	if (loopback < 0)
		return exporter_error(-EINVAL, "host must be an IPv4 or IPv6 address in numbers, or localhost");
	if (!loopback && !options->insecure && (!options->token || !options->tls_cert_file))
		return exporter_error(-EACCES, "others could reach %s: give a token and TLS files, or say insecure",
				      options->host);
	return 0;
}

/* A name goes into comparisons only, but one with odd characters is a mistake. */
static bool name_valid(const char *name)
{
	return *name && strlen(name) < ACCESS_NAME_MAX && !strpbrk(name, " \t\r\n/@");
}

static int check_names(const struct memwatch_exporter_options *options)
{
	if (options->token && !access_token_valid(options->token))
		return exporter_error(-EINVAL, "token must be %d to %d characters of A-Z a-z 0-9 _ -", ACCESS_TOKEN_MIN,
				      ACCESS_TOKEN_MAX);
	if (options->metrics_need_token && options->metrics_open)
		return exporter_error(-EINVAL, "metrics_need_token and metrics_open contradict each other");
	if (options->allowed_host && !name_valid(options->allowed_host))
		return exporter_error(
			-EINVAL,
			"allowed_host must be a host name, with or without a port, or several with commas between");
	if (!options->tls_cert_file != !options->tls_key_file)
		return exporter_error(-EINVAL, "TLS needs both tls_cert_file and tls_key_file");
	return 0;
}

static int check(const struct memwatch_exporter_options *options)
{
	int error = check_limits(options);
	if (!error)
		error = check_address(options);
	return error ? error : check_names(options);
}

bool exporter_options_any_port(const struct memwatch_exporter_options *options)
{
	return options->port == PORT_DEFAULT && !options->port_exact;
}

int exporter_options_take(const struct memwatch_exporter_options *given, struct memwatch_exporter_options *ret_options)
{
	struct memwatch_exporter_options options = defaults;
	int error = given ? memwatch_struct_read(&options, sizeof options, given, given->struct_bytes) : 0;
	if (error == -E2BIG || (!error && options.reserved))
		return exporter_error(
			-EINVAL,
			"an option is set that this library, %s, does not know: leave it out, or run with "
			"the library that the program's header came with",
			memwatch_version());
	if (error)
		return exporter_error(error, "fill the options in with memwatch_exporter_options_init() first");
	*ret_options = options;
	return check(&options);
}

static int read_file(FILE *file, char *text)
{
	size_t n_bytes = fread(text, 1, PEM_MAX, file);
	text[n_bytes] = '\0';
	if (n_bytes == PEM_MAX)
		return -EFBIG;
	return n_bytes == 0 || ferror(file) ? -EIO : 0;
}

int exporter_options_read_pem(const char *path, char **ret_text)
{
	char *text = malloc(PEM_MAX + 1);
	if (!text)
		return exporter_error(-ENOMEM, "out of memory");
	FILE *file = fopen(path, "re");
	int error = file ? read_file(file, text) : -errno;
	if (file)
		fclose(file);
	if (error) {
		free(text);
		return exporter_error(error, "%s cannot be read: %s", path, strerror(-error));
	}
	*ret_text = text;
	return 0;
}
