/*
 * fault.h -- what the backends and the source of notes share: taking a note on the writer's thread, chaining signals,
 * asking the system what it allows.
 */
#ifndef FAULT_H
#define FAULT_H

#include "../base/backend.h"

#include <signal.h>

/* The backends in the order in which `auto` tries them, and the source of notes for uffd. */
extern const struct backend fault_uffd, fault_mprotect, fault_poll;
extern const struct source fault_sigtrap;

/*
 * Brackets everything that a handler does with the ring; fault_enter gives the ring or NULL when nobody listens any more.
 * Signal-safe.
 */
struct ring *fault_enter(void);
void fault_leave(void);
/* Sets the ring that notes go to. With NULL, returns when no handler holds the old one. */
void fault_ring_set(struct ring *ring);

/* How many calling frames the frame hook is asked for. */
void fault_depth_set(unsigned depth);
unsigned fault_depth(void);
/* In the child of a fork: nobody listens. */
void fault_fork_child(void);

/* Takes a note. `context` is the handler's, NULL when it is not the writer's (the signal came late). Signal-safe. */
void fault_note(struct ring *ring, uint64_t address, void *context);

/* Who runs `context` (NULL: not known): its instruction pointer, thread and the interpreter's location. Signal-safe. */
void fault_writer(void *context, uint64_t *ret_ip, int32_t *ret_thread_id, uint32_t *ret_location);

/*
 * Takes a note for address 0 outside any handler, so that all that handlers call is bound: binding it lazily in a handler would
 * write to a page that may be armed.
 */
void fault_rehearse(struct ring *ring);

/* Arms one page of uffd's again. Signal-safe. */
void uffd_rearm(uint64_t page);

/* One signal's place in the chain. */
struct fault_chain {
	int signal;
	void (*handler)(int, siginfo_t *, void *);
	struct sigaction before; /* whose turn it is when the signal is not ours */
	struct sigaction first;  /* who had it when we came: when `before` hands a signal back to us */
	bool installed;          /* ever */
	_Atomic uint64_t n_lost; /* how often somebody had replaced ours */
};

/* Installs the handler in front of whoever has the signal; again when somebody replaced it. 0 or -errno. */
int fault_chain_install(struct fault_chain *chain);
/* Installs it again, and counts, when it is not in front any more. */
void fault_chain_keep(struct fault_chain *chain);
/* Hands a foreign signal on with its siginfo intact: to the handler before, or to the default action by returning. Signal-safe. */
void fault_chain_pass(struct fault_chain *chain, int signal, siginfo_t *info, void *context);

/* Puts the handler of SIGTRAP in front, the first time or again. 0 or -errno. */
int fault_trap_hold(void);
/* Does a debugger trace the process? It would stop at each of our signals. */
bool fault_traced(void);
/* Calls `attach` for each thread that there is, until no new one comes: those that begin later inherit. Its first error, or 0. */
int fault_each_thread(int (*attach)(pid_t thread, void *arg), void *arg);

/* Reads a number from a file of /proc/sys; -1 when it cannot be read. */
int fault_sysctl(const char *path);

/* A mapping of this process. */
struct mapping {
	uint64_t start, end;
	bool readable, writable, executable, file;
};
/* The mappings that hold bytes of [start, end), up to `n`, in order; how many there are. */
size_t fault_mappings(uint64_t start, uint64_t end, struct mapping *mappings, size_t n);

#endif
