// SPDX-License-Identifier: MIT
/* access.c - accesses that survive SIGBUS, and the thread that repeats them. */
#define _GNU_SOURCE
#include "access.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <time.h>

#define PATIENCE_SECONDS 5

static _Thread_local sigjmp_buf landing;
static _Thread_local volatile sig_atomic_t armed;

static void on_sigbus(int sig)
{
	if (armed)
		siglongjmp(landing, 1);
	/* Not ours: let it happen again, and kill. */
	signal(sig, SIG_DFL);
}

void access_prepare(void)
{
	/* SA_NODEFER, as siglongjmp() with no saved mask leaves it as it is. */
	struct sigaction action = { .sa_handler = on_sigbus, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &action, NULL);
}

bool try_load(const volatile uint64_t *at, uint64_t *value)
{
	if (sigsetjmp(landing, 0)) {
		armed = 0;
		return false;
	}
	armed = 1;
	*value = *at;
	armed = 0;
	return true;
}

bool try_store(volatile uint64_t *at, uint64_t value)
{
	if (sigsetjmp(landing, 0)) {
		armed = 0;
		return false;
	}
	armed = 1;
	*at = value;
	armed = 0;
	return true;
}

static struct {
	pthread_mutex_t lock;
	pthread_cond_t news;
	struct tally tally;
	access_step *step;
	uint64_t steps;
} loop = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *run_loop(void *arg)
{
	for (uint64_t step = 0;; step = (step + 1) % loop.steps) {
		enum outcome outcome = loop.step(step);
		bool round = step == loop.steps - 1;

		pthread_mutex_lock(&loop.lock);
		if (outcome == GOT_SIGBUS && loop.tally.count[GOT_SIGBUS] == 0)
			loop.tally.first_sigbus = step;
		loop.tally.count[outcome]++;
		loop.tally.rounds += round;
		if (round || outcome == GOT_SIGBUS)
			pthread_cond_signal(&loop.news);
		pthread_mutex_unlock(&loop.lock);
	}
	return arg;
}

int loop_start(access_step *step, uint64_t steps)
{
	pthread_condattr_t attr;
	pthread_t thread;

	loop.step = step;
	loop.steps = steps;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&loop.news, &attr);
	errno = pthread_create(&thread, NULL, run_loop, NULL);
	return errno ? -1 : 0;
}

struct tally loop_now(void)
{
	struct tally now;

	pthread_mutex_lock(&loop.lock);
	now = loop.tally;
	pthread_mutex_unlock(&loop.lock);
	return now;
}

struct tally loop_await(uint64_t rounds, uint64_t sigbus)
{
	struct timespec end;
	struct tally now;
	int err = 0;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += PATIENCE_SECONDS;

	pthread_mutex_lock(&loop.lock);
	while (!err && loop.tally.rounds < rounds &&
	       loop.tally.count[GOT_SIGBUS] < sigbus)
		err = pthread_cond_timedwait(&loop.news, &loop.lock, &end);
	now = loop.tally;
	pthread_mutex_unlock(&loop.lock);
	return now;
}
