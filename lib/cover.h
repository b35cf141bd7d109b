/* SPDX-License-Identifier: MIT */
/* cover.h - what a lost map has in place of the lease. */
#ifndef BARLEASE_COVER_H
#define BARLEASE_COVER_H

#include <stdbool.h>
#include <stdint.h>

#include "slots.h"

/*
 * These may be called in signal handlers, by all threads at once, and change errno.
 * Who calls has entered the slot, or keeps the map from being restored and unmapped.
 * false: the kernel does not allow it.
 */

/*
 * Leave nothing of the lease. flags: MAP_FIXED, or MAP_FIXED_NOREPLACE where there
 * may be a hole or another's mapping.
 */
bool barlease_cover(struct survivor *s, int flags);

/* See that an access to this address of a map that is covered reads ones. */
bool barlease_fill(struct survivor *s, uintptr_t addr);

/* Give back what pieces of a map that is covered take. false: nothing is given. */
bool barlease_unfill(struct survivor *s);

/* Never give those back that it has: there may be something else in their place. */
void barlease_forget_pieces(struct survivor *s);

/* So that there is room among the mappings when it matters. */
void barlease_make_spares(void);

#endif /* BARLEASE_COVER_H */
