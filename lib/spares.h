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

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * A large map needs two at its loss, two for each piece that is then touched, and the
 * last, at 0, to start over with. The more pieces go before that, the more room there
 * is for threads that do so at once.
 */
#define NR_SPARES 8

struct spares {
	_Atomic uintptr_t at[NR_SPARES];
};

/*
 * These may be called in signal handlers, by all threads at once, and change errno.
 * An address in there is of a mapping that belongs to who takes it out: by one atomic
 * step, so one thread alone unmaps it.
 */

/*
 * Have all of them again, or as many as the kernel gives. false with errno set: not
 * even the last is there.
 */
bool barlease_spares_fill(struct spares *spares);

/* Give up one, but none of the first kept. false: there is none. */
bool barlease_spares_give_up(struct spares *spares, int kept);

#endif /* BARLEASE_SPARES_H */
