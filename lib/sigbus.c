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
	uint64_t bus = 1ULL << (SIGBUS - 1);

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

int barlease_sigbus_install(void)
{
	static bool installed;
	sigset_t none;
	struct sigaction ours = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};

	if (installed)
		return 0;
	/* Else the loader may look it up in the handler, see survive.c. */
	sigemptyset(&none);
	sigdelset(&none, SIGBUS);
	if (sigaction(SIGBUS, NULL, &before[0]))
		return -1;
	/*
	 * Called by us it has the signals blocked that the kernel would have blocked,
	 * and a SIGBUS that somebody sends interrupts system calls as it did.
	 */
	ours.sa_mask = before[0].sa_mask;
	ours.sa_flags |= before[0].sa_flags & (SA_RESTART | SA_NODEFER);
	if (!(before[0].sa_flags & SA_SIGINFO) && before[0].sa_handler == SIG_IGN)
		ours.sa_flags |= SA_RESTART;
	if (sigaction(SIGBUS, &ours, &before[1]))
		return -1;
	atomic_store(&latest, 1);
	installed = true;
	return 0;
}
