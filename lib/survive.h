/* SPDX-License-Identifier: MIT */
/*
 * survive.h - mappings whose loss a program survives: when a page of one is gone
 * all of it becomes memory that reads as ones.
 */
#ifndef BARLEASE_SURVIVE_H
#define BARLEASE_SURVIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct survivor;

struct survivor_options {
	int prot;
	bool dontfork;
	bool handler; /* install the library's own, if it isn't yet */
};

/* Make a mapping, of whole pages, survive. NULL with errno set on failure. */
struct survivor *barlease_survivor_add(char *addr, size_t length,
				       const struct survivor_options *options);

/* Unmap it, too. Returns 0, or -1 with munmap()'s errno: it is still there. */
int barlease_survivor_unmap(struct survivor *s);

/*
 * Is it lost? Then there is nothing of the lease left in it, unless its pages can
 * not be replaced now.
 */
bool barlease_survivor_lost(struct survivor *s);

/*
 * Is it not? By one load, for who does not care what is left. Where *moment is the
 * same at two times it was neither lost nor restored between.
 */
bool barlease_survivor_live(const struct survivor *s, uint32_t *moment);

/* Map the lease there again, from offset on; see barlease_map_restore(). */
int barlease_survivor_restore(struct survivor *s, int lease_fd, uint64_t offset);

/*
 * Between these no fork() of the process begins: for who makes a mapping and only
 * then can tell that a child is not to have it. By one thread, not twice.
 */
void barlease_forks_hold(void);
void barlease_forks_let_go(void);

/*
 * In a signal handler, where an access to addr was a SIGBUS: see to it that the
 * access can be done again. false: it is no survivor's, or there is no way.
 */
bool barlease_survive(const void *addr);

#endif /* BARLEASE_SURVIVE_H */
