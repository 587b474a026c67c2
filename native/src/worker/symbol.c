/*
 * symbol.c -- DESIGN: the loaded object comes from the dynamic linker's list, everything else from libdw, which reads
 * the object's file and, where there is one, its separate debug file. Answers are kept in a direct-mapped cache,
 * strings in a pool that is never emptied. The resolver's thread runs this, and owns the libdw session and the pool;
 * others only ask the cache what is known, under its mutex.
 *
 * Bounds: the cache has a fixed size, the pool too (a full pool gives ""), and the session, which remembers every
 * compilation unit that it parsed, is thrown away after so many look-ups.
 *
 * dladdr is not used: it takes the lock that dlopen holds while constructors run, and a constructor may wait for the
 * worker. dl_iterate_phdr takes another one, which no foreign code runs under.
 *
 * libdw ends the process when it finds no memory. Our handler leaves the look-up instead, and what it has left half
 * done is never used again.
 *
 * What is lost: a file that was replaced since it was loaded (its build id differs) gives object and offset only.
 */
#define _GNU_SOURCE
#include "symbol.h"
#include "demangle.h"
#include "pool.h"
#include "unwind.h"
#include "../base/descriptor.h"
#include "../base/hash.h"
#include "../base/maps.h"
#include "../base/memory.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	CACHE_ENTRIES = 4096,
	SESSION_LOOKUPS = 4096, /* a session's look-ups, before its memory is given back */
	FILES_MAX = 256,
	BUILD_ID_MAX = 64,
	READABLE_BYTES = 1024 /* of a name; a longer one stays mangled */
};

#define RETRY_NS NS_PER_S /* when to ask again for what could not be read */

struct entry {
	uint64_t ip;       /* 0: free */
	uint64_t until_ns; /* CLOCK_MONOTONIC: not to be believed after that; 0: for good */
	struct symbol symbol;
};

/* What the dynamic linker counts: when it differs, objects came or went. */
struct loads {
	unsigned long long added, removed;
};

struct symbol_table {
	Dwfl_Callbacks callbacks;
	pthread_mutex_t lock; /* of what follows */
	struct loads loads;
	struct entry entries[CACHE_ENTRIES];
};

/* A loaded object, as the dynamic linker has it. */
struct object {
	uint64_t ip; /* what is looked for */
	uint64_t base, start, end;
	char path[PATH_MAX];
	unsigned char build_id[BUILD_ID_MAX];
	size_t build_id_bytes;
};

/* libdw's session: of the one table that there is. Here, where a leak checker sees that somebody holds it. */
static struct {
	Dwfl *dwfl; /* NULL until it is needed */
	unsigned n_lookups, n_files;
	struct descriptor files[FILES_MAX]; /* that it has open */
	bool unwinds;                       /* it knows how to read a stack */
	bool fell_short;                    /* of a file, of descriptors or of memory, in this look-up */
	jmp_buf out_of_memory;              /* where a look-up goes on that finds no memory */
} session;

static const struct symbol unknown = { .symbol = "", .object = "", .file = "", .function = "" };

/* The object's build id, from the note that the dynamic linker mapped with it. */
static void read_build_id(struct object *object, uint64_t notes, uint64_t notes_bytes)
{
	ElfW(Nhdr) note;
	for (uint64_t at = 0; at + sizeof note <= notes_bytes;) {
		if (memory_copy(&note, notes + at, sizeof note) < 0)
			return;
		uint64_t id = at + sizeof note + ((note.n_namesz + UINT64_C(3)) & ~UINT64_C(3));
		if (note.n_type == NT_GNU_BUILD_ID && note.n_descsz <= BUILD_ID_MAX &&
		    id + note.n_descsz <= notes_bytes &&
		    memory_copy(object->build_id, notes + id, note.n_descsz) == 0) {
			object->build_id_bytes = note.n_descsz;
			return;
		}
		at = id + ((note.n_descsz + UINT64_C(3)) & ~UINT64_C(3));
	}
}

/* Called under the dynamic linker's lock: takes down what is needed and nothing else. */
static int match_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct object *object = arg;
	uint64_t start = UINT64_MAX, end = 0;
	bool holds = false;
	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		uint64_t at = info->dlpi_addr + header->p_vaddr;
		if (header->p_type != PT_LOAD)
			continue;
		start = min_u64(start, at);
		end = max_u64(end, at + header->p_memsz);
		holds |= header->p_flags & PF_X && object->ip - at < header->p_memsz;
	}
	if (!holds)
		return 0;
	object->base = info->dlpi_addr;
	object->start = start;
	object->end = end;
	snprintf(object->path, sizeof object->path, "%s", info->dlpi_name);
	for (int i = 0; i < info->dlpi_phnum && !object->build_id_bytes; i++)
		if (info->dlpi_phdr[i].p_type == PT_NOTE)
			read_build_id(object, info->dlpi_addr + info->dlpi_phdr[i].p_vaddr, info->dlpi_phdr[i].p_memsz);
	return 1;
}

struct path_request {
	char *ret_path;
	size_t size;
	bool found;
};

static bool take_path(const struct mapping *mapping, const char *path, void *arg)
{
	struct path_request *request = arg;
	(void)mapping;
	request->found = *path == '/' && (size_t)snprintf(request->ret_path, request->size, "%s", path) < request->size;
	return false;
}

/* The path of the mapping at `address`, as the kernel has it: absolute, whatever the working directory is now. */
static bool mapped_path(uint64_t address, char *ret_path, size_t size)
{
	struct path_request request = { .ret_path = ret_path, .size = size };
	session.fell_short |= maps_each(address, address + 1, take_path, &request) < 0;
	return request.found;
}

/* Finds the loaded object that holds `ip`. */
static bool find_object(uint64_t ip, struct object *object)
{
	object->ip = ip;
	object->build_id_bytes = 0;
	if (!dl_iterate_phdr(match_object, object))
		return false;
	if (object->path[0] != '/') {
		char path[PATH_MAX];
		if (mapped_path(ip, path, sizeof path))
			memcpy(object->path, path, sizeof path);
	}
	return true;
}

static int count_loads(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct loads *loads = arg;
	(void)size;
	loads->added = info->dlpi_adds;
	loads->removed = info->dlpi_subs;
	return 1;
}

/* --- libdw ------------------------------------------------------------------------------------------------------ */

/* Did a file that was not found fail for want of descriptors? */
static bool descriptors_are_short(void)
{
	int fd = open("/", O_PATH | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	return fd < 0 && errno != ENOENT && errno != EACCES;
}

/*
 * A file of the session's: its descriptor gets a high number, which libdw closes when the session ends, and is
 * remembered. -1 when it cannot be had.
 */
static int keep_file(int fd)
{
	struct descriptor file;
	if (fd >= 0 && session.n_files == FILES_MAX) {
		close(fd);
		session.fell_short = true;
		return -1;
	}
	if (fd < 0) {
		session.fell_short |= descriptors_are_short();
		return -1;
	}
	if (descriptor_adopt(fd, DESCRIPTOR_FILE, &file)) {
		session.fell_short = true;
		return -1;
	}
	session.files[session.n_files++] = file;
	return file.fd;
}

/* By build id, then by the name that the object gives, in the usual places. */
static int find_anywhere(Dwfl_Module *module, void **data, const char *name, Dwarf_Addr base, const char *file,
			 const char *debug_link, GElf_Word crc, char **ret_file)
{
	return keep_file(dwfl_standard_find_debuginfo(module, data, name, base, file, debug_link, crc, ret_file));
}

/* By build id only: the other search ends at the debuginfod servers, and a watcher does not reach for the network. */
static int find_by_build_id(Dwfl_Module *module, void **data, const char *name, Dwarf_Addr base, const char *file,
			    const char *debug_link, GElf_Word crc, char **ret_file)
{
	return keep_file(dwfl_build_id_find_debuginfo(module, data, name, base, file, debug_link, crc, ret_file));
}

static bool files_are_ours(void)
{
	for (unsigned i = 0; i < session.n_files; i++)
		if (!descriptor_is_ours(&session.files[i]))
			return false;
	return true;
}

/*
 * libdw would close by number what the host has opened since it closed our files: such a session is left alone for
 * good.
 */
static void end_session(void)
{
	if (session.dwfl && files_are_ours())
		dwfl_end(session.dwfl);
	session.dwfl = NULL;
	session.unwinds = false;
	session.n_lookups = session.n_files = 0;
}

/* After a look-up that was left in the middle. */
static void abandon_session(void)
{
	session.dwfl = NULL;
	session.unwinds = false;
	session.fell_short = true;
}

static Dwfl *begin_session(const struct symbol_table *table)
{
	if (session.n_lookups++ >= SESSION_LOOKUPS)
		end_session();
	if (!session.dwfl)
		session.dwfl = dwfl_begin(&table->callbacks);
	return session.dwfl;
}

/* Is the file the one that was loaded? */
static bool same_build(Dwfl_Module *module, const struct object *object)
{
	const unsigned char *id;
	GElf_Addr at;
	GElf_Addr bias;
	if (!dwfl_module_getelf(module, &bias))
		return false;
	int n = dwfl_module_build_id(module, &id, &at);
	return n <= 0 ? !object->build_id_bytes
		      : (size_t)n == object->build_id_bytes &&
				memcmp(id, object->build_id, object->build_id_bytes) == 0;
}

static Dwfl_Module *report_object(Dwfl *dwfl, const struct object *object)
{
	/* The executable is opened through the kernel, so that its file may have been moved or removed. */
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/thread-self/exe", self, sizeof self - 1);
	self[n < 0 ? 0 : n] = '\0';
	bool executable = strcmp(object->path, self) == 0;
	int fd = keep_file(open(executable ? "/proc/thread-self/exe" : object->path, O_RDONLY | O_CLOEXEC));
	if (fd < 0) {
		session.fell_short = true;
		return NULL;
	}
	dwfl_report_begin_add(dwfl);
	Dwfl_Module *module = dwfl_report_elf(dwfl, object->path, object->path, fd, object->base, true);
	if (!module)
		descriptor_close(&session.files[--session.n_files]);
	dwfl_report_end(dwfl, NULL, NULL);
	return module;
}

__attribute__((noreturn)) static void leave_lookup(void)
{
	longjmp(session.out_of_memory, 1);
}

/* Reads the module's debug information, if it has any, and sees to what happens when memory runs out over it. */
static void guard_memory(Dwfl_Module *module)
{
	Dwarf_Addr bias;
	Dwarf *dwarf = dwfl_module_getdwarf(module, &bias);
	if (dwarf)
		dwarf_new_oom_handler(dwarf, leave_lookup);
}

/* The module of the object, reported when it is first asked for; NULL when its file cannot be trusted or read. */
static Dwfl_Module *find_module(Dwfl *dwfl, const struct object *object)
{
	if (!dwfl || object->path[0] != '/')
		return NULL;
	Dwfl_Module *module = dwfl_addrmodule(dwfl, object->ip);
	if (!module)
		module = report_object(dwfl, object);
	if (!module || !same_build(module, object))
		return NULL;
	guard_memory(module);
	return module;
}

static const char *intern_readable(const char *name)
{
	char readable[READABLE_BYTES];
	return pool_intern(demangle(name, readable, sizeof readable));
}

static void resolve_function(Dwfl_Module *module, uint64_t ip, struct symbol *symbol)
{
	GElf_Off offset;
	GElf_Sym found;
	const char *name = dwfl_module_addrinfo(module, ip, &offset, &found, NULL, NULL, NULL);
	if (!name || (found.st_size && offset >= found.st_size))
		return;
	symbol->symbol = intern_readable(name);
	if (*symbol->symbol)
		symbol->offset = offset;
}

/*
 * The compilation unit that holds the address. The index of units is only a hint: where a unit's end is not known, it
 * gives the one before. Compilers that write no index leave a search over all.
 */
static Dwarf_Die *unit_of(Dwfl_Module *module, uint64_t ip, Dwarf_Addr *ret_bias)
{
	Dwarf_Die *unit = dwfl_module_addrdie(module, ip, ret_bias);
	if (unit && dwarf_haspc(unit, ip - *ret_bias) > 0)
		return unit;
	for (unit = NULL; (unit = dwfl_module_nextcu(module, unit, ret_bias));)
		if (dwarf_haspc(unit, ip - *ret_bias) > 0)
			return unit;
	return NULL;
}

/* The function that the source line is in, where it is not the one whose code it is: one that was inlined. */
static void resolve_inlined(Dwarf_Die *unit, uint64_t pc, struct symbol *symbol)
{
	Dwarf_Die *scopes = NULL;
	int n = dwarf_getscopes(unit, pc, &scopes);
	for (int i = 0; i < n; i++) {
		Dwarf_Attribute attribute;
		int tag = dwarf_tag(&scopes[i]);
		if (tag == DW_TAG_subprogram)
			break;
		if (tag != DW_TAG_inlined_subroutine)
			continue;
		const char *name = dwarf_formstring(dwarf_attr_integrate(&scopes[i], DW_AT_name, &attribute));
		symbol->function = name ? pool_intern(name) : symbol->function;
		break;
	}
	free(scopes);
}

static void resolve_line(Dwfl_Module *module, uint64_t ip, struct symbol *symbol)
{
	Dwarf_Addr bias = 0;
	int line = 0;
	Dwarf_Die *unit = unit_of(module, ip, &bias);
	Dwarf_Line *source = unit ? dwarf_getsrc_die(unit, ip - bias) : NULL;
	const char *file = source && dwarf_lineno(source, &line) == 0 ? dwarf_linesrc(source, NULL, NULL) : NULL;
	symbol->file = pool_intern(file);
	symbol->line = *symbol->file && line > 0 ? line : 0;
	if (symbol->line)
		resolve_inlined(unit, ip - bias, symbol);
}

static void resolve(struct symbol_table *table, uint64_t ip, struct symbol *symbol)
{
	static struct object object; /* not lost when the look-up is left */
	*symbol = unknown;
	if (!find_object(ip, &object))
		return;
	if (setjmp(session.out_of_memory)) {
		abandon_session();
		return;
	}
	symbol->object = pool_intern(object.path);
	symbol->offset = ip - object.start;
	Dwfl_Module *module = find_module(begin_session(table), &object);
	if (!module)
		return;
	resolve_function(module, ip, symbol);
	symbol->function = symbol->symbol;
	resolve_line(module, ip, symbol);
}

/* Have objects come or gone? */
static bool loads_differ(const struct symbol_table *table, struct loads *ret_now)
{
	*ret_now = (struct loads){ 0, 0 };
	dl_iterate_phdr(count_loads, ret_now);
	return ret_now->added != table->loads.added || ret_now->removed != table->loads.removed;
}

/* Forgets what may be wrong now that objects came or went. */
static void follow_loads(struct symbol_table *table)
{
	struct loads now;
	if (!loads_differ(table, &now))
		return;
	if (now.removed != table->loads.removed)
		end_session();
	pthread_mutex_lock(&table->lock);
	memset(table->entries, 0, sizeof table->entries);
	table->loads = now;
	pthread_mutex_unlock(&table->lock);
}

/* --- the table -------------------------------------------------------------------------------------------------- */

struct symbol_table *symbol_table_open(void)
{
	struct symbol_table *table = mem_alloc(sizeof *table);
	if (!table)
		return NULL;
	session.dwfl = NULL; /* what a fork copied may be half done: the child leaves it alone */
	session.n_lookups = session.n_files = 0;
	pthread_mutex_init(&table->lock, NULL);
	const char *servers = getenv("DEBUGINFOD_URLS");
	table->callbacks.find_elf = dwfl_linux_proc_find_elf;
	table->callbacks.find_debuginfo = servers && *servers ? find_by_build_id : find_anywhere;
	dl_iterate_phdr(count_loads, &table->loads);
	return table;
}

/* A program that links the archive with libdw alone has libelf from its start, and nothing of it is allocated later. */
#pragma weak elf_errno

void symbol_thread_begin(void)
{
	(void)(dwfl_errno() + dwarf_errno());
	if (elf_errno)
		(void)elf_errno();
}

void symbol_table_close(struct symbol_table *table)
{
	if (!table)
		return;
	end_session();
	pthread_mutex_destroy(&table->lock);
	mem_free(table);
}

static struct entry *entry_of(struct symbol_table *table, uint64_t ip)
{
	static_assert(CACHE_ENTRIES == 1 << (64 - 52), "the hash's upper bits number the entries");
	return &table->entries[hash_word(ip) >> 52];
}

static bool is_current(const struct entry *entry, uint64_t ip)
{
	return entry->ip == ip && (!entry->until_ns || time_monotonic_ns() < entry->until_ns);
}

bool symbol_known(struct symbol_table *table, uint64_t ip, struct symbol *ret_symbol)
{
	struct loads now;
	*ret_symbol = unknown;
	if (!table || !ip)
		return true;
	pthread_mutex_lock(&table->lock);
	const struct entry *entry = entry_of(table, ip);
	bool known = is_current(entry, ip) && !loads_differ(table, &now);
	if (known)
		*ret_symbol = entry->symbol;
	pthread_mutex_unlock(&table->lock);
	return known;
}

const struct symbol *symbol_resolve(struct symbol_table *table, uint64_t ip)
{
	if (!table || !ip)
		return &unknown;
	follow_loads(table);
	struct entry *entry = entry_of(table, ip); /* nobody else writes it */
	if (is_current(entry, ip))
		return &entry->symbol;
	if (session.fell_short) /* libdw remembers what it has not found */
		end_session();
	session.fell_short = false;
	struct entry found = { .ip = ip };
	resolve(table, ip, &found.symbol);
	found.until_ns = session.fell_short ? time_monotonic_ns() + RETRY_NS : 0;
	pthread_mutex_lock(&table->lock);
	*entry = found;
	pthread_mutex_unlock(&table->lock);
	return &entry->symbol;
}

/* --- callers --- */

/*
 * Are the unwind tables known of the code at `ip`? They are not of the code that the kernel lends, which keeps frame
 * pointers.
 */
static bool can_unwind(Dwfl *dwfl, uint64_t ip)
{
	static struct object object;
	void **trusted = NULL;
	Dwfl_Module *module = dwfl_addrmodule(dwfl, ip);
	if (module)
		dwfl_module_info(module, &trusted, NULL, NULL, NULL, NULL, NULL, NULL);
	if (trusted && *trusted)
		return true;
	if (!find_object(ip, &object))
		return false;
	if (object.path[0] != '/')
		return stack_in_libc(ip);
	module = find_module(dwfl, &object);
	if (module && dwfl_module_info(module, &trusted, NULL, NULL, NULL, NULL, NULL, NULL) && trusted)
		*trusted = module;
	return module;
}

unsigned symbol_walk(struct symbol_table *table, const struct stack *stack, unsigned depth, uint64_t *ret_ips,
		     unsigned n)
{
	static struct walk walk; /* not lost when the look-up is left */
	if (!table || !stack->ip || !n)
		return 0;
	follow_loads(table);
	Dwfl *dwfl = begin_session(table);
	walk = (struct walk){ .stack = stack, .can_unwind = can_unwind, .ips = ret_ips, .max = n, .depth = depth };
	if (setjmp(session.out_of_memory)) {
		abandon_session();
		return walk.n;
	}
	if (!dwfl)
		return 0;
	if (!can_unwind(dwfl, stack->ip))
		return 0;
	if (!session.unwinds) {
		can_unwind(dwfl, (uintptr_t)symbol_walk); /* of a file libdw learns what processor this is */
		session.unwinds = unwind_begin(dwfl);
	}
	if (session.unwinds)
		unwind(dwfl, &walk);
	return walk.n;
}
