// SPDX-License-Identifier: MIT
/*
 * sigbus.c - the library's handler of SIGBUS, and what becomes of a SIGBUS that
 * is none of the library's: the same as if the library were not there.
 */
#define _GNU_SOURCE
#include "sigbus.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "barlease.h"
#include "survive.h"

/*
 * What was installed before. It has to be known before our handler can run, and
 * sigaction() tells it for certain only when that can have run: so it is asked
 * twice, and the second answer counts once it is written.
 */
static struct sigaction before[2];
static atomic_int latest;
static atomic_bool spent; /* one with SA_RESETHAND has had its signal */

/*
 * Ours has every signal blocked, and a program's own has not: sigfillset() leaves
 * out those of the C library.
 */
#define EVERY_SIGNAL  UINT64_MAX
#define NEVER_BLOCKED (1ULL << (SIGKILL - 1) | 1ULL << (SIGSTOP - 1))
#define BUS           (1ULL << (SIGBUS - 1))

int barlease_handle_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	bool ours = sig == SIGBUS && info->si_code == BUS_ADRERR &&
		    barlease_survive(info->si_addr);

	(void)context;
	errno = saved;
	return ours;
}

/*
 * The default action, by sending the signal as it was: it is blocked until we
 * return to where it came from, and not then, so the core shows that place.
 */
static void die(siginfo_t *info, ucontext_t *context)
{
	struct sigaction action = { .sa_handler = SIG_DFL };
	uint64_t bus = BUS;

	sigdelset(&context->uc_sigmask, SIGBUS);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &bus, NULL, sizeof(bus));
	sigaction(SIGBUS, &action, NULL);
	syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), SIGBUS,
		info);
}

/* The kernel does not let these be ignored: the access could only be repeated. */
static bool is_forced(const siginfo_t *info)
{
	switch (info->si_code) {
	case BUS_ADRALN:
	case BUS_ADRERR:
	case BUS_OBJERR:
	case BUS_MCEERR_AR:
		return true;
	}
	return false;
}

/* The kernel's own signal set, which is the beginning of the C library's. */
static uint64_t word_of(const sigset_t *set)
{
	uint64_t word;

	memcpy(&word, set, sizeof(word));
	return word;
}

/*
 * Have those signals blocked that the kernel would have blocked for it. One that
 * is called by a handler of the program's has what that one has.
 */
static void set_mask_for(const struct sigaction *action, const ucontext_t *context)
{
	uint64_t mask;

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof(mask));
	if ((mask | NEVER_BLOCKED) != EVERY_SIGNAL)
		return;
	/* A system call with a mask of its own took it, if it is blocked there. */
	mask = (word_of(&context->uc_sigmask) & ~BUS) | word_of(&action->sa_mask);
	if (!(action->sa_flags & SA_NODEFER))
		mask |= BUS;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
	const struct sigaction *action = &before[atomic_load(&latest)];

	if (!(action->sa_flags & SA_SIGINFO)) {
		if (action->sa_handler == SIG_IGN && !is_forced(info))
			return;
		if (action->sa_handler == SIG_IGN || action->sa_handler == SIG_DFL) {
			die(info, context);
			return;
		}
	}
	if (action->sa_flags & SA_RESETHAND && atomic_exchange(&spent, true)) {
		die(info, context);
		return;
	}
	set_mask_for(action, context);
	if (action->sa_flags & SA_SIGINFO)
		action->sa_sigaction(sig, info, context);
	else
		action->sa_handler(sig);
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	if (!barlease_handle_sigbus(sig, info, context))
		pass_on(sig, info, context);
	errno = saved;
}

/* A SIGBUS that somebody sends interrupts system calls as it did. */
static int flags_like(const struct sigaction *action)
{
	bool ignored =
		!(action->sa_flags & SA_SIGINFO) && action->sa_handler == SIG_IGN;

	return SA_SIGINFO | SA_ONSTACK |
	       (ignored ? SA_RESTART : action->sa_flags & SA_RESTART);
}

int barlease_sigbus_install(void)
{
	static bool installed;
	struct sigaction ours = { .sa_sigaction = on_sigbus }, now;
	sigset_t none;

	if (installed)
		return 0;
	/* Else the loader may look it up in the handler, see survive.c. */
	sigemptyset(&none);
	sigdelset(&none, SIGBUS);
	if (sigaction(SIGBUS, NULL, &before[0]))
		return -1;
	/*
	 * A signal that comes meanwhile waits until the access is done again: its
	 * handler may access another map that is gone, with SIGBUS blocked by ours.
	 */
	memset(&ours.sa_mask, 0xff, sizeof(ours.sa_mask));
	ours.sa_flags = flags_like(&before[0]);
	if (sigaction(SIGBUS, &ours, &before[1]))
		return -1;
	atomic_store(&latest, 1);
	installed = true;
	if (flags_like(&before[1]) == ours.sa_flags)
		return 0;
	/* Another thread has installed its own between. One from after ours stays. */
	ours.sa_flags = flags_like(&before[1]);
	sigaction(SIGBUS, &ours, &now);
	if (now.sa_sigaction != on_sigbus)
		sigaction(SIGBUS, &now, NULL);
	return 0;
}
