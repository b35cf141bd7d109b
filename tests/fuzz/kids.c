// SPDX-License-Identifier: MIT
/*
 * kids.c - lessees that were forked: each is told what to do, record by record,
 * and does it while everyone else waits.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kids.h"
#include "lessee.h"

#define MAX_KIDS 2

struct order {
	op_fn op; /* NULL: sweep */
	struct record record;
};

struct kid {
	pid_t pid;
	int fd;
};

static struct kid kids[MAX_KIDS];
static uint32_t nr_kids;

/* Ends when the parent closes its end. An order that fails ends it by wrong(). */
static _Noreturn void live(int fd)
{
	struct order order;
	int result;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* RAM and BLK are never closed, so it does not matter that we have them. */
	barlease_device_close(&devices[SPARE]);
	coverage_start();
	while (read(fd, &order, sizeof(order)) == sizeof(order)) {
		result = 0;
		if (order.op)
			result = order.op(&order.record);
		else
			lessee_sweep();
		coverage_collect();
		if (write(fd, &result, sizeof(result)) != sizeof(result))
			break;
	}
	/* What it has mapped goes while its calls are still counted. */
	lessee_clear();
	coverage_collect();
	_exit(0);
}

static int tell(uint32_t kid, op_fn op, const struct record *r)
{
	struct order order = { .op = op };
	int result;

	if (r)
		order.record = *r;
	say("child %u:", kid + 1);
	if (write(kids[kid].fd, &order, sizeof(order)) != sizeof(order) ||
	    read(kids[kid].fd, &result, sizeof(result)) != sizeof(result))
		wrong("child %u of this input failed or died", kid + 1);
	return result;
}

int do_by_lessee(op_fn op, const struct record *r)
{
	uint32_t who = r->who % (MAX_KIDS + 1);

	if (who && who <= nr_kids)
		return tell(who - 1, op, r);
	return op(r);
}

int op_fork(const struct record *r)
{
	int pair[2];
	pid_t pid;

	(void)r;
	if (nr_kids == MAX_KIDS)
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		wrong("socketpair: %m");
	pid = fork();
	if (pid < 0)
		wrong("fork: %m");
	if (!pid) {
		for (uint32_t i = 0; i < nr_kids; i++)
			close(kids[i].fd);
		close(pair[0]);
		nr_kids = 0;
		live(pair[1]);
	}
	close(pair[1]);
	kids[nr_kids++] = (struct kid){ pid, pair[0] };
	/* Not before it has let go of the device that may be closed. */
	tell(nr_kids - 1, NULL, NULL);
	return 0;
}

static void end_last(void)
{
	struct kid *kid = &kids[--nr_kids];
	int status;

	close(kid->fd);
	if (waitpid(kid->pid, &status, 0) != kid->pid || status)
		wrong("child %u of this input died, status %#x", nr_kids + 1, status);
}

int op_exit(const struct record *r)
{
	(void)r;
	if (nr_kids)
		end_last();
	return 0;
}

void sweep_all(void)
{
	lessee_sweep();
	for (uint32_t i = 0; i < nr_kids; i++)
		tell(i, NULL, NULL);
}

void kids_end(void)
{
	while (nr_kids)
		end_last();
}
