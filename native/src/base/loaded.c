/*
 * loaded.c -- DESIGN: what is left with the process after the last watcher, a signal's handler and a key's destructor,
 * must not vanish under it by dlclose. libmemwatch.so says so itself (-z nodelete). A plugin that was linked with
 * libmemwatch.a may not, and is asked here to stay.
 *
 * What is lost: where the dynamic linker has no memory the plugin does not stay; the next watcher asks again.
 */
#define _GNU_SOURCE
#include "loaded.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#pragma weak dlopen /* a static program has none, and no plugin */
#pragma weak dlclose

struct mine {
	char path[PATH_MAX]; /* "": the program itself */
	bool stays;
};

static bool marked(const ElfW(Dyn) * entry)
{
	for (; entry->d_tag != DT_NULL; entry++)
		if (entry->d_tag == DT_FLAGS_1 && entry->d_un.d_val & DF_1_NODELETE)
			return true;
	return false;
}

static int match(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct mine *mine = arg;
	const ElfW(Dyn) *dynamic = NULL;
	uintptr_t here = (uintptr_t)loaded_for_ever;
	bool found = false;
	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		if (part->p_type == PT_LOAD)
			found |= here - (info->dlpi_addr + part->p_vaddr) < part->p_memsz;
		else if (part->p_type == PT_DYNAMIC)
			dynamic = (const void *)(info->dlpi_addr + part->p_vaddr); // NOLINT(performance-no-int-to-ptr)
	}
	if (found) {
		mine->stays = dynamic && marked(dynamic);
		snprintf(mine->path, sizeof mine->path, "%s", info->dlpi_name ? info->dlpi_name : "");
	}
	return found;
}

void loaded_for_ever(void)
{
	static _Atomic bool done;
	struct mine mine = { .path = "" };
	if (atomic_load(&done) || !dlopen || !dlclose)
		return;
	if (dl_iterate_phdr(match, &mine) && !mine.stays && mine.path[0]) {
		void *handle = dlopen(mine.path, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
		if (!handle)
			return;
		dlclose(handle);
	}
	atomic_store(&done, true);
}
