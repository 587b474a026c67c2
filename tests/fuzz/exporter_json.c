/*
 * exporter_json.c -- fuzzes what the exporter writes: labels and JSON made of arbitrary names, values and formats.
 *
 * DESIGN. The input becomes an event. Its JSON must be read by cJSON, be valid UTF-8 on one line and within a bound;
 * its name as a label must be valid UTF-8 without a bare quote or line end.
 */
#include "text/digits.h"
#include "text/json.h"
#include "text/number_json.h"

#include <cjson/cJSON.h>
#include <memwatch/reader.h>
#include <math.h>
#include <stdlib.h>

/* Takes bytes off the input; zeros at its end. */
struct input {
	const uint8_t *data;
	size_t n_bytes;
};

static uint8_t take(struct input *input)
{
	if (input->n_bytes == 0)
		return 0;
	input->n_bytes--;
	return *input->data++;
}

static uint64_t take_u64(struct input *input)
{
	uint64_t value = 0;

	for (int i = 0; i < 8; i++)
		value = value << 8 | take(input);
	return value;
}

/* A string of its own memory, so that reading past it is seen. */
static char *take_string(struct input *input, size_t max)
{
	size_t n = take(input) % max;
	char *string = malloc(n + 1);

	if (string == NULL)
		abort();
	for (size_t i = 0; i < n; i++)
		string[i] = (char)take(input);
	string[n] = '\0';
	return string;
}

static uint8_t *take_bytes(struct input *input, size_t n)
{
	uint8_t *bytes = malloc(n + 1);

	if (bytes == NULL)
		abort();
	for (size_t i = 0; i < n; i++)
		bytes[i] = take(input);
	return bytes;
}

static void check_utf8(const struct text *text)
{
	const uint8_t *p = (const uint8_t *)text->data;
	size_t n;

	for (size_t i = 0; i < text->n_bytes; i += n) {
		n = memwatch_utf8_length(p + i, text->n_bytes - i);
		if (n == 0 || p[i] < 0x20)
			abort();
	}
}

static void check_label(const char *name)
{
	struct text clean = { 0 }, label = { 0 };

	text_clean(&clean, name);
	text_label(&label, clean.data, clean.n_bytes);
	check_utf8(&label);
	for (size_t i = 0; i < label.n_bytes; i++) {
		if (label.data[i] == '\\')
			i++;
		else if (label.data[i] == '"')
			abort();
	}
	text_fini(&clean);
	text_fini(&label);
}

static void check_double(uint64_t bits)
{
	struct text text = { 0 };
	double value;

	memcpy(&value, &bits, sizeof value);
	text_double(&text, value);
	text_char(&text, '\0');
	if (isfinite(value) && strtod(text.data, NULL) != value)
		abort();
	if (text.n_bytes > DIGITS_MAX)
		abort();
	text_fini(&text);
}

static void check_event(const struct memwatch_event *event)
{
	struct text text = { 0 };
	cJSON *root, *name;

	json_event(&text, event);
	check_utf8(&text);
	if (text.n_bytes > 8192)
		abort();
	text_char(&text, '\0');
	root = cJSON_Parse(text.data);
	name = cJSON_GetObjectItemCaseSensitive(root, "name");
	if (!cJSON_IsString(name) || !cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(root, "where")))
		abort();
	cJSON_Delete(root);
	text_fini(&text);
}

static void make_event(struct input *input, const char *name, const char *format)
{
	static const uint8_t widths[] = { 0, 1, 2, 3, 4, 8, 16 };
	uint64_t n_old = take(input) % 64, n_new = take(input) % 64, shape[4], n_known = n_old < n_new ? n_old : n_new;
	uint8_t *old_bytes = take_bytes(input, n_old), *new_bytes = take_bytes(input, n_new);
	struct memwatch_range changes[4];
	const struct memwatch_frame frames[] = { { name, format, take(input) - 5 }, { "", "", 0 } };
	struct memwatch_event event = { .seq = take_u64(input), .name = name, .format = format, .backend = "fuzz" };

	for (int i = 0; i < 4; i++) {
		shape[i] = take(input) % 5;
		changes[i] = (struct memwatch_range){ take(input) % 70, take(input) % 70 };
	}
	event.time_ns = take_u64(input);
	event.region_id = take_u64(input);
	event.kind = take(input) % 2;
	event.values = take(input) % 4;
	event.size_bytes = n_new;
	event.old_bytes = n_old;
	event.new_bytes = n_new;
	event.old_value = take(input) % 4 ? old_bytes : NULL;
	event.new_value = take(input) % 4 ? new_bytes : NULL;
	event.preview_bytes = take(input) % 70;
	event.old_preview = take(input) % 4 ? old_bytes : NULL;
	event.new_preview = take(input) % 4 ? new_bytes : NULL;
	event.old_hash = event.new_hash = take_u64(input);
	event.changed_bytes = n_known;
	event.n_changes = take(input) % 5;
	event.changes = changes;
	event.item_bytes = widths[take(input) % sizeof widths];
	event.n_dims = take(input) % 5;
	event.shape = shape;
	event.fortran_order = take(input) % 2;
	event.where = (struct memwatch_where){ .thread_name = name,
					       .n_frames = take(input) % 3,
					       .frames = frames,
					       .symbol = format,
					       .object = name,
					       .native = frames[1],
					       .libc_function = name,
					       .thread_id = (int32_t)take_u64(input) };
	check_event(&event);
	free(old_bytes);
	free(new_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	struct input input = { data, n_bytes };
	char *name = take_string(&input, 80), *format = take_string(&input, 4);

	check_label(name);
	check_double(take_u64(&input));
	make_event(&input, name, format);
	free(name);
	free(format);
	return 0;
}
