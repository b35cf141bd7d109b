// SPDX-License-Identifier: MIT
/* turn.c - a lock that signal handlers take, too. */
#define _GNU_SOURCE
#include "turn.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The thread whose turn it is, or 0. */
static _Atomic uint32_t holder;

static uint32_t this_thread(void)
{
	return syscall(SYS_gettid);
}

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

#define LONGEST_TURN 100000000 /* ns; by far longer than one takes that runs */

/* false: it has been that thread's turn for as long as that. */
static bool await_end_of_turn(uint32_t whose)
{
	const struct timespec longest = { .tv_nsec = LONGEST_TURN };

	return syscall(SYS_futex, &holder, FUTEX_WAIT_PRIVATE, whose, &longest, NULL,
		       0) == 0 ||
	       errno != ETIMEDOUT;
}

void barlease_turn_take(void)
{
	uint32_t me = this_thread(), whose = 0;

	while (!atomic_compare_exchange_strong(&holder, &whose, me)) {
		if (whose && await_end_of_turn(whose))
			whose = 0;
	}
}

void barlease_turn_end(void)
{
	uint32_t me = this_thread();

	/* It may have been taken away meanwhile. */
	if (atomic_compare_exchange_strong(&holder, &me, 0))
		syscall(SYS_futex, &holder, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void barlease_turn_forget_others(void)
{
	atomic_store(&holder, 0);
}
