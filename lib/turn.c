// SPDX-License-Identifier: MIT
/* turn.c - a lock that signal handlers take, too. */
#define _GNU_SOURCE
#include "turn.h"

#include <signal.h>
#include <stdatomic.h>

#include "futex.h"

/* Each has a number of its own, lest a thread that has had several seem to be stuck. */
static _Atomic uint32_t last_turn;
static _Atomic uint32_t current; /* or 0 */

/* The kernel's own signal set, which has no room for more than it needs. */
static void set_signal_mask(const uint64_t *mask, uint64_t *old)
{
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, mask, old, sizeof(*mask));
}

void barlease_signals_block(struct signals *old)
{
	const uint64_t all = UINT64_MAX;

	set_signal_mask(&all, &old->mask);
}

void barlease_signals_restore(const struct signals *old)
{
	set_signal_mask(&old->mask, NULL);
}

/* A turn in which all start over takes about 50 ms of CPU where all was stored to. */
uint32_t barlease_turn_take(void)
{
	uint32_t mine, other = 0;

	do
		mine = atomic_fetch_add(&last_turn, 1) + 1;
	while (!mine);
	while (!atomic_compare_exchange_strong(&current, &other, mine)) {
		if (other && barlease_futex_wait(&current, other, TURN_MS))
			other = 0;
	}
	return mine;
}

void barlease_turn_end(uint32_t turn)
{
	/* It may have been taken away meanwhile. */
	if (atomic_compare_exchange_strong(&current, &turn, 0))
		barlease_futex_wake(&current, 1);
}

void barlease_turn_forget_others(void)
{
	atomic_store(&current, 0);
}
