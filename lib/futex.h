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
 * Until it is no longer value and somebody wakes, or for no reason. Not longer than
 * for a tenth of a second, as who is to do that may be a thread that does not run:
 * then false.
 */
static inline bool barlease_futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	const struct timespec longest = { .tv_nsec = 100000000 };

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
