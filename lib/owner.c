// SPDX-License-Identifier: MIT
/*
 * owner.c - tell a process from its parent, of whose memory it has a copy.
 *
 * It takes two signs. A pid alone may be the parent's: number 1 of a PID namespace
 * that forks into another has a child that is number 1 too, and numbers come again.
 * How many forks lie behind alone may be the parent's, as clone() runs no handler of
 * fork(). Only such a bare clone() to the same number is not noticed.
 */
#define _GNU_SOURCE
#include "owner.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a signal handler can't read it");

static _Atomic uint32_t forks;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int atfork_error;

static void after_fork_child(void)
{
	atomic_fetch_add(&forks, 1);
}

static void register_handler(void)
{
	atfork_error = pthread_atfork(NULL, NULL, after_fork_child);
}

/* Where the program is linked statically its constructors may map before ours run. */
__attribute__((constructor)) static void prepare_forks(void)
{
	pthread_once(&once, register_handler);
}

int barlease_owner_set(struct owner *owner)
{
	prepare_forks();
	if (atfork_error) {
		errno = atfork_error;
		return -1;
	}
	*owner = (struct owner){ getpid(), atomic_load(&forks) };
	return 0;
}

bool barlease_owner_is_us(const struct owner *owner)
{
	return owner->pid == getpid() && owner->forks == atomic_load(&forks);
}
