/* SPDX-License-Identifier: MIT */
/*
 * spares.h - mappings that are there to be given up, so that what is lost can be
 * replaced where the process has as many as it may have (vm.max_map_count).
 *
 * Beyond that limit the kernel refuses each mmap(), also one that would leave fewer
 * of them; but not to unmap a whole one.
 */
#ifndef BARLEASE_SPARES_H
#define BARLEASE_SPARES_H

#include <stdbool.h>

/*
 * Each piece of a large map takes two, where it does not meet another; one access may
 * need two pieces at once; and the last is not for pieces, see cover.c.
 */
#define NR_SPARES  8
#define LAST_SPARE 1

/*
 * These may be called in signal handlers, by all threads at once, and change errno.
 */

/*
 * Have all of them again, or as many as the kernel gives. false with errno set: not
 * even the last is there.
 */
bool barlease_spares_fill(void);

/* Are all there? */
bool barlease_spares_are_whole(void);

/* Give up one, but none of the last kept. false: there is none. Then it keeps errno. */
bool barlease_spares_give_up(int kept);

#endif /* BARLEASE_SPARES_H */
