/*
 * maps.c -- DESIGN: a text that the kernel makes anew for each reader, line by line; so a mapping that comes or goes
 * meanwhile may be missed or shown twice. Any thread may ask; nothing is kept.
 */
#define _GNU_SOURCE
#include "maps.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* One line; false when it is none. */
static bool mapping_parse(char *line, struct mapping *ret_mapping, const char **ret_path)
{
	unsigned long long start, end, offset, inode;
	unsigned major, minor;
	char mode[5];
	int path = 0;
	line[strcspn(line, "\n")] = '\0';
	if (sscanf(line, "%llx-%llx %4s %llx %x:%x %llu %n", &start, &end, mode, &offset, &major, &minor, &inode,
		   &path) != 7)
		return false;
	*ret_mapping = (struct mapping){ .start = start,
					 .end = end,
					 .readable = mode[0] == 'r',
					 .writable = mode[1] == 'w',
					 .executable = mode[2] == 'x',
					 .shared = mode[3] == 's',
					 .file = inode != 0 };
	*ret_path = line + path;
	return true;
}

int maps_each(uint64_t start, uint64_t end, bool (*take)(const struct mapping *mapping, const char *path, void *arg),
	      void *arg)
{
	char line[PATH_MAX + 128];
	/* Of the process's first thread nothing is left here once it has ended, so each asks for itself. */
	FILE *maps = fopen("/proc/thread-self/maps", "re");
	if (!maps)
		return -errno;
	while (fgets(line, sizeof line, maps)) {
		struct mapping mapping;
		const char *path;
		if (!strchr(line, '\n')) /* the rest of a long path */
			for (int c = 0; c != '\n' && c != EOF; c = fgetc(maps))
				;
		if (!mapping_parse(line, &mapping, &path) || mapping.end <= start)
			continue;
		if (mapping.start >= end || !take(&mapping, path, arg))
			break;
	}
	fclose(maps);
	return 0;
}

struct listing {
	struct mapping *mappings;
	size_t n, found;
};

static bool list(const struct mapping *mapping, const char *path, void *arg)
{
	struct listing *listing = arg;
	(void)path;
	if (listing->found < listing->n)
		listing->mappings[listing->found] = *mapping;
	listing->found++;
	return true;
}

size_t maps_list(uint64_t start, uint64_t end, struct mapping *ret_mappings, size_t n)
{
	struct listing listing = { .mappings = ret_mappings, .n = n };
	maps_each(start, end, list, &listing);
	return listing.found;
}
