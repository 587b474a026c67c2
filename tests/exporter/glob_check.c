/*
 * glob_check.c -- reads lines "pattern<tab>text", writes 1 where the pattern matches the text, else 0.
 */
#include "http/query.h"

#include <stdio.h>
#include <string.h>

int main(void)
{
	char line[512];
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = '\0';
		char *text = strchr(line, '\t');
		if (!text)
			return 1;
		*text++ = '\0';
		puts(query_glob(line, strlen(line), text, strlen(text)) ? "1" : "0");
	}
	return 0;
}
