/*
 * text_check.c -- writes, for each double on standard input (16 hexadecimal digits a line), what text_double() makes of
 * it; for "s N" what text_seconds() makes of N nanoseconds.
 */
#include "text/text.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
	struct text text = { 0 };
	char line[64];

	setlocale(LC_ALL, "");
	while (fgets(line, sizeof line, stdin) != NULL) {
		text.n_bytes = 0;
		if (line[0] == 's') {
			text_seconds(&text, strtoull(line + 2, NULL, 10));
		} else {
			uint64_t bits = strtoull(line, NULL, 16);
			double value;

			memcpy(&value, &bits, sizeof value);
			text_double(&text, value);
		}
		printf("%.*s\n", (int)text.n_bytes, text.data);
	}
	text_fini(&text);
	return 0;
}
