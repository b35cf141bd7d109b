/* SPDX-License-Identifier: MIT */
/*
 * turn.h - one thread at a time replaces mappings by more of them, so that the room
 * which it makes for that is its own.
 *
 * No promise hangs on it but that one: from a thread that does not run who waits
 * takes its turn away, after a tenth of a second.
 */
#ifndef BARLEASE_TURN_H
#define BARLEASE_TURN_H

#include <stdint.h>

/* The signals that a thread blocks. */
struct signals {
	uint64_t mask;
};

/* Block all, as who holds up others must not wait for a handler on top of it. */
void barlease_signals_block(struct signals *old);
void barlease_signals_restore(const struct signals *old);

/*
 * With all signals blocked, in a signal handler too; not twice. What taking it returns
 * is for ending it. Changes errno.
 */
uint32_t barlease_turn_take(void);
void barlease_turn_end(uint32_t turn);

/* In a child of fork(): it is nobody's who stayed in the parent. */
void barlease_turn_forget_others(void);

#endif /* BARLEASE_TURN_H */
