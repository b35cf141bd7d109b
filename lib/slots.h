/* SPDX-License-Identifier: MIT */
/*
 * slots.h - where the handler of SIGBUS finds the maps that survive: slots that are
 * never freed, which it can read without a lock and without allocating.
 *
 * Who is at one is counted in its use. Who takes a map away or restores it changes
 * use or state first and then waits until nobody is counted: a handler that came
 * before is done by then, a later one sees the change.
 */
#ifndef BARLEASE_SLOTS_H
#define BARLEASE_SLOTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "owner.h"

/* state: one of these, and above it the generation, one more with each restore. */
enum { LIVE, LOSING, LOST, RESTORING };
#define PHASE      3u
#define GENERATION 4u

struct survivor {
	_Atomic uint32_t use;
	_Atomic uint32_t state;
	_Atomic uint64_t first_fault; /* survive.c's */
	_Atomic uintptr_t start;
	_Atomic size_t length;
	_Atomic uint32_t begun, ended, covered; /* cover.c's */
	/* Constant while it is used. */
	int prot;
	bool dontfork;
	struct owner owner; /* where a child has none */
	struct survivor *next_free;
};

/* In a signal handler, too. */

struct cursor {
	struct block *block;
	int slot;
};

/* All that there are, used or not; a cursor of zeroes is at the first. NULL: the end.
 */
struct survivor *barlease_slots_next(struct cursor *at);

/*
 * Take hold of it: what it says is constant until it is let go, which it is to be in
 * any case. false: it is nobody's.
 */
bool barlease_slot_enter(struct survivor *s);
void barlease_slot_leave(struct survivor *s);

/* A child has the slots but not the mappings that it was not to have. */
bool barlease_slot_is_ours(const struct survivor *s);

/* Not in a signal handler, and by one thread at a time. */

/* One that is nobody's, or NULL with errno set. */
struct survivor *barlease_slot_take(void);
void barlease_slot_use(struct survivor *s);
void barlease_slot_put_back(struct survivor *s);

/* From here on who enters it is told that it is nobody's. */
void barlease_slot_end_use(struct survivor *s);

/* Wait until all have left who are at it. */
void barlease_slot_drain(struct survivor *s);

/*
 * The same, while it has this state, and not for ever. false: somebody is still at it
 * or the state has changed.
 */
bool barlease_slot_try_drain(struct survivor *s, uint32_t state);

/* In a child of fork(): of others who were at one there are only the traces. */
void barlease_slots_forget_others(void);

#endif /* BARLEASE_SLOTS_H */
