/* SPDX-License-Identifier: MIT */
/*
 * lessees.h - processes that use a lease without pause while a test does
 * something to it.
 */
#ifndef LESSEES_H
#define LESSEES_H

#include <stdint.h>

#include "harness.h"

#define MOST_LESSEES 3

/* What one lessee has seen so far; shared with the test. */
struct lessee {
	_Atomic uint64_t works; /* accesses that went through */
	_Atomic uint64_t sigbus;
};

/*
 * Readers load the word at offset of each lease in turn, and fail the test when
 * it is not what it was at first: a device that does not answer reads as ones.
 */
struct readers {
	unsigned int count;
	struct lessee *seen;
	_Atomic bool *stop;
	struct kid kids[MOST_LESSEES];
};

/* One reader a lease. They map the leases themselves, and have begun. */
struct readers readers_start(const int *leases, unsigned int count, uint64_t offset);
/* Until each reader's access has worked, or failed, some more times. */
void readers_wait_works(const struct readers *readers);
void readers_wait_sigbus(const struct readers *readers);
uint64_t readers_count_works(const struct readers *readers);
uint64_t readers_count_sigbus(const struct readers *readers);
void readers_stop(struct readers *readers);

#endif /* LESSEES_H */
