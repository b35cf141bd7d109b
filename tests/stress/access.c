// SPDX-License-Identifier: MIT
/*
 * access.c - loads and stores that may end in a signal.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

#include "access.h"

static _Thread_local sigjmp_buf escape;
static _Thread_local const void *volatile expected;

static void on_signal(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (info->si_addr == expected)
		siglongjmp(escape, number);
	/* A bug of the program's own: it happens again, and kills. */
	signal(number, SIG_DFL);
}

void access_prepare(void)
{
	/* SA_NODEFER, so that no access pays for saving the signal mask. */
	struct sigaction action = { .sa_sigaction = on_signal,
				    .sa_flags = SA_SIGINFO | SA_NODEFER };

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

int access_load(const void *at, uint64_t *value)
{
	int number = sigsetjmp(escape, 0);

	if (!number) {
		expected = at;
		*value = *(const volatile uint64_t *)at;
	}
	expected = NULL;
	return number;
}

int access_store(void *at, uint64_t value)
{
	int number = sigsetjmp(escape, 0);

	if (!number) {
		expected = at;
		*(volatile uint64_t *)at = value;
	}
	expected = NULL;
	return number;
}
