// SPDX-License-Identifier: MIT
/*
 * wait_test.c - who waits for a lease gets each that comes, whatever interrupts or
 * cancels it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/time.h>
#include <time.h>

#include "passing.h"

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void a_wait_is_no_longer_than_the_socket_says(void **state)
{
	struct fixture *f = *state;
	struct timeval limit = { 0, 100000 };
	int64_t begin;

	assert_int_equal(
		setsockopt(f->to, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
	begin = now_ms();
	check_refused(f, EAGAIN);
	assert_in_range(now_ms() - begin, 99, 60000);
	assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
	check_sample_arrives(f);
}

/*
 * Signals
 */

static struct fixture *signalled;
static volatile sig_atomic_t signals;

/* After a few interruptions, send what the interrupted call waits for. */
static void on_alarm(int number)
{
	(void)number;
	if (++signals == 3)
		barlease_send(signalled->from, signalled->file, &sample);
}

static void a_signal_does_not_end_the_wait(void **state)
{
	struct sigaction action = { .sa_handler = on_alarm }, old;
	struct itimerval every = { { 0, 10000 }, { 0, 10000 } }, never = { 0 };

	signalled = *state;
	signals = 0;
	assert_int_equal(sigaction(SIGALRM, &action, &old), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
	check_sample_arrives(*state);
	assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
	assert_int_equal(sigaction(SIGALRM, &old, NULL), 0);
}

/*
 * Threads
 */

static sem_t taken;

static void *receive_many(void *fixture)
{
	const struct fixture *f = fixture;
	uintptr_t got = 0;

	for (int i = 0; i < 1000; i++) {
		struct barlease_info info;
		int fd = receive(f, &info);

		if (fd >= 0)
			close(fd);
		got += fd >= 0;
		sem_post(&taken);
	}
	return (void *)got;
}

/* Each message wakes both, and one of them takes it. */
static void threads_that_wait_together_get_a_message_each(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[2];
	void *got;

	assert_int_equal(sem_init(&taken, 0, 0), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, receive_many, f), 0);
	for (int i = 0; i < 2000; i++) {
		assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
		assert_int_equal(sem_wait(&taken), 0);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(threads[i], &got), 0);
		assert_int_equal((uintptr_t)got, 1000);
	}
	sem_destroy(&taken);
}

/*
 * Cancellation
 */

static _Thread_local bool a_message_cancels;

ssize_t __wrap_recvmsg(int sock, struct msghdr *msg, int flags);
ssize_t __real_recvmsg(int sock, struct msghdr *msg, int flags);

/* As glibc has it before 2.41: it may end a thread with the message in hand. */
ssize_t __wrap_recvmsg(int sock, struct msghdr *msg, int flags)
{
	ssize_t got = __real_recvmsg(sock, msg, flags);

	if (a_message_cancels && got >= 0) {
		pthread_cancel(pthread_self());
		pthread_testcancel();
	}
	return got;
}

static void *receive_and_close(void *f)
{
	struct barlease_info info;
	int fd = receive(f, &info), former;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &former);
	if (fd >= 0)
		close(fd);
	pthread_setcancelstate(former, NULL);
	return NULL;
}

static void *receive_cancelled(void *f)
{
	a_message_cancels = true;
	receive_and_close(f);
	pthread_testcancel();
	return NULL;
}

static void *receive_when_cancelled(void *f)
{
	pthread_cancel(pthread_self());
	return receive_and_close(f);
}

static void check_cancelled(pthread_t thread)
{
	void *ret;

	assert_int_equal(pthread_join(thread, &ret), 0);
	assert_ptr_equal(ret, PTHREAD_CANCELED);
}

static void a_thread_can_be_cancelled_while_it_waits(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, receive_and_close, f), 0);
	assert_int_equal(pthread_cancel(thread), 0);
	check_cancelled(thread);
	assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
	check_sample_arrives(f);
}

/* It takes no message either. */
static void a_thread_that_was_cancelled_receives_nothing(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
	assert_int_equal(pthread_create(&thread, NULL, receive_when_cancelled, f), 0);
	check_cancelled(thread);
	check_sample_arrives(f);
}

/* To close what came is to pass points where a thread may be cancelled, too. */
static void a_thread_cancelled_by_then_leaves_no_fd(void **state)
{
	struct fixture *f = *state;
	struct raw raw = raw_message(&sample);
	pthread_t thread;

	for (int nr = 1; nr <= 3; nr++) {
		send_raw(f, raw.bytes, raw.length, nr);
		assert_int_equal(pthread_create(&thread, NULL, receive_cancelled, f),
				 0);
		check_cancelled(thread);
		assert_int_equal(count_fds(), f->fds);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STREAM(a_wait_is_no_longer_than_the_socket_says),
		STREAM(a_signal_does_not_end_the_wait),
		UNLESS_ASAN(a_thread_can_be_cancelled_while_it_waits, setup_stream,
			    teardown),
		UNLESS_ASAN(a_thread_that_was_cancelled_receives_nothing, setup_stream,
			    teardown),
		UNLESS_ASAN(a_thread_cancelled_by_then_leaves_no_fd, setup_stream,
			    teardown),
		PACKETS(a_wait_is_no_longer_than_the_socket_says),
		PACKETS(threads_that_wait_together_get_a_message_each),
	};

	return cmocka_run_group_tests_name("wait", tests, NULL, NULL);
}
