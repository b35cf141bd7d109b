/* SPDX-License-Identifier: MIT */
/*
 * ones.h - the memory that a lost map reads: all ones, as a PCI device that is
 * not there.
 */
#ifndef BARLEASE_ONES_H
#define BARLEASE_ONES_H

#include <stdbool.h>
#include <stddef.h>

/*
 * How much of it there is. It takes that much memory in each process that has a
 * map which survives, so not much more than leases usually have.
 */
#define ONES_SIZE (2UL << 20)

/* Make it; once is enough. One thread at a time. Returns 0, or -1 with errno. */
int barlease_ones_prepare(void);

/*
 * Put it in place of what is at addr, for this process alone: it may store there,
 * others don't see it. length: ONES_SIZE at most. flags: MAP_FIXED or
 * MAP_FIXED_NOREPLACE. In a signal handler too; changes errno.
 */
bool barlease_ones_map(char *addr, size_t length, int prot, int flags);

/*
 * The same with nothing, of any length: an access is SIGBUS. It counts against no
 * limit of a process but that of its address space.
 */
bool barlease_nothing_map(char *addr, size_t length, int prot, int flags);

/*
 * The same where there is room, for nobody to access. The kernel merges two that meet
 * with neither, as each is of the file's beginning. NULL with errno set on failure.
 */
char *barlease_nothing_map_somewhere(size_t length);

#endif /* BARLEASE_ONES_H */
