/*
 * identity.c -- DESIGN: reads the names of a process once, when its exporter opens. On the opening thread; pure after
 * that, on any.
 *
 * Of many processes of one service the names are what tells one from the other. Nothing here is taken from the pid:
 * names become labels of metrics, and a new series for every worker that was ever started fills the database.
 */
#include "identity.h"

#include "error.h"
#include "text/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const char label_letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";

/* What was given; else what stands in the environment; else `otherwise`. */
static const char *choose(const char *given, const char *variable, const char *otherwise)
{
	if (given && *given)
		return given;
	const char *found = secure_getenv(variable);
	return found && *found ? found : otherwise;
}

/* As Prometheus wants it; ours, and those that begin with two underscores, are taken. */
static bool label_name_valid(const char *name)
{
	static const char *const taken[] = { "pid", "service", "worker" };
	for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
		if (strcmp(name, taken[i]) == 0)
			return false;
	}
	bool begins_well = *name && strspn(name, label_letters) == strlen(name) && !(*name >= '0' && *name <= '9');
	return begins_well && strncmp(name, "__", 2) != 0;
}

static bool has_label(const struct identity *identity, const char *name)
{
	for (unsigned i = 0; i < identity->n_labels; i++) {
		if (strcmp(identity->labels[i].name, name) == 0)
			return true;
	}
	return false;
}

/* One "name=value" of `n_bytes`. */
static int take_label(struct identity *identity, const char *text, size_t n_bytes)
{
	struct identity_label label;
	const char *equals = memchr(text, '=', n_bytes);
	size_t name_bytes = equals ? (size_t)(equals - text) : n_bytes, value_bytes = n_bytes - name_bytes;
	if (identity->n_labels == IDENTITY_LABELS_MAX)
		return exporter_error(-EINVAL, "labels: there may be %d", IDENTITY_LABELS_MAX);
	if (value_bytes < 2 || name_bytes >= sizeof label.name || value_bytes > sizeof label.value)
		return exporter_error(-EINVAL, "labels must be like zone=eu,tier=web; \"%.*s\" is not", (int)n_bytes,
				      text);
	snprintf(label.name, sizeof label.name, "%.*s", (int)name_bytes, text);
	snprintf(label.value, sizeof label.value, "%.*s", (int)value_bytes - 1, equals + 1);
	if (!label_name_valid(label.name) || has_label(identity, label.name))
		return exporter_error(
			-EINVAL, "labels: \"%s\" is no name, or taken: letters, digits and _, once, and none of ours",
			label.name);
	identity->labels[identity->n_labels++] = label;
	return 0;
}

static int take_labels(struct identity *identity, const char *text)
{
	while (*text) {
		size_t n = strcspn(text, ",");
		int error = take_label(identity, text, n);
		if (error)
			return error;
		text += n + (text[n] == ',');
	}
	return 0;
}

int identity_take(struct identity *identity, const struct memwatch_exporter_options *options)
{
	const char *service = choose(options->service, "MEMWATCH_SERVICE", program_invocation_short_name);
	const char *worker = choose(options->worker, "MEMWATCH_WORKER", "");
	if (strlen(service) >= sizeof identity->service || strlen(worker) >= sizeof identity->worker)
		return exporter_error(-EINVAL, "service may have %zu bytes, worker %zu", sizeof identity->service - 1,
				      sizeof identity->worker - 1);
	snprintf(identity->service, sizeof identity->service, "%s", service);
	snprintf(identity->worker, sizeof identity->worker, "%s", worker);
	return take_labels(identity, choose(options->labels, "MEMWATCH_LABELS", ""));
}

static void write_label(struct text *text, const char *name, const char *value)
{
	struct text clean = { 0 };
	text_clean(&clean, value);
	text_string(text, name);
	text_string(text, "=\"");
	text_label(text, clean.data, clean.n_bytes);
	text_char(text, '"');
	text->failed |= clean.failed;
	text_fini(&clean);
}

void identity_write_labels(const struct identity *identity, struct text *text)
{
	write_label(text, "service", identity->service);
	text_char(text, ',');
	write_label(text, "worker", identity->worker);
	for (unsigned i = 0; i < identity->n_labels; i++) {
		text_char(text, ',');
		write_label(text, identity->labels[i].name, identity->labels[i].value);
	}
}

void identity_write_json(const struct identity *identity, struct text *text)
{
	json_string(text, "service", identity->service);
	json_string_or_null(text, "worker", identity->worker);
	json_key(text, "labels");
	text_char(text, '{');
	for (unsigned i = 0; i < identity->n_labels; i++)
		json_string(text, identity->labels[i].name, identity->labels[i].value);
	text_char(text, '}');
}
