/* SPDX-License-Identifier: MIT */
/*
 * futex.h - wait for a word of the process to change, in signal handlers, too. These
 * change errno.
 */
#ifndef BARLEASE_FUTEX_H
#define BARLEASE_FUTEX_H

#include <errno.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/*
 * How long is waited for a thread that may not run, in ms: for the end of its turn; by
 * a restore, for who is in the handler, among them who wait for a turn; and by who
 * waits for the restore.
 */
#define TURN_MS     100
#define DRAIN_MS    500
#define PATIENCE_MS 1000

/*
 * Until it is no longer value and somebody wakes, or for no reason. false: that has
 * not happened in so many ms.
 */
static inline bool barlease_futex_wait(_Atomic uint32_t *word, uint32_t value, long ms)
{
	const struct timespec longest = { ms / 1000, ms % 1000 * 1000000 };

	return syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &longest, NULL, 0) ==
		       0 ||
	       errno != ETIMEDOUT;
}

/* Wake so many of those who wait. */
static inline void barlease_futex_wake(_Atomic uint32_t *word, int nr)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, nr, NULL, NULL, 0);
}

#endif /* BARLEASE_FUTEX_H */
