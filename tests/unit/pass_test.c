// SPDX-License-Identifier: MIT
/*
 * pass_test.c - a lease passed over a socket arrives whole, and no message of a
 * hostile peer gets an fd, or a leak, into the receiver.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_uapi.h"
#include "unit.h"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76 /* Linux 6.5 */
#endif

/* More fds than a message can carry to a receiver that expects one. */
#define MANY_FDS 100

static const struct barlease_info sample = {
	.size = sizeof(sample),
	.state = BARLEASE_STATE_LIVE,
	.id = 0x1122334455667788,
	.length = 0x40000000,
	.nr_ranges = 7,
	.nr_spans = 3,
	.memattr = BARLEASE_MEMATTR_WC,
	.access = O_RDWR,
	.va_hint = 0x3fe00000,
	.faults = 0x99aabbccddeeff00,
};

/* Two ends of a socket, and a file that stands for a lease. */
struct fixture {
	int from, to;
	int file;
	int fds; /* open ones, all in all */
};

static int setup(void **state, int type)
{
	static struct fixture f;
	int pair[2];

	assert_return_code(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair), errno);
	f.from = pair[0];
	f.to = pair[1];
	f.file = memfd_create("lease", MFD_CLOEXEC);
	assert_return_code(f.file, errno);
	f.fds = count_fds();
	*state = &f;
	return 0;
}

static int setup_stream(void **state)
{
	return setup(state, SOCK_STREAM);
}

static int setup_packets(void **state)
{
	return setup(state, SOCK_SEQPACKET);
}

/* Every test ends with the fds it began with. */
static int teardown(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(count_fds(), f->fds);
	close(f->file);
	close(f->to);
	if (f->from >= 0)
		close(f->from);
	return 0;
}

/*
 * A peer that makes up its own messages
 */

/* Where the information is, behind the magic. */
#define INFO_AT 8

struct raw {
	char bytes[256];
	size_t length;
};

/* What barlease_send() makes of info. */
static struct raw raw_message(const struct barlease_info *info)
{
	struct raw raw;
	int pair[2];
	ssize_t got;

	assert_return_code(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), errno);
	assert_int_equal(barlease_send(pair[0], pair[0], info), 0);
	got = recv(pair[1], raw.bytes, sizeof(raw.bytes), 0);
	assert_in_range(got, 1, sizeof(raw.bytes) - 1);
	raw.length = got;
	close(pair[0]);
	close(pair[1]);
	return raw;
}

static void send_raw(const struct fixture *f, const void *bytes, size_t length, int nr)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(MANY_FDS * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)bytes, length };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[MANY_FDS];

	for (int i = 0; i < nr; i++)
		fds[i] = f->file;
	if (nr) {
		control.header = (struct cmsghdr){
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
			.cmsg_len = CMSG_LEN(nr * sizeof(int)),
		};
		memcpy(CMSG_DATA(&control.header), fds, nr * sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(nr * sizeof(int));
	}
	assert_int_equal(sendmsg(f->from, &msg, MSG_NOSIGNAL), length);
}

static int receive(const struct fixture *f, struct barlease_info *info)
{
	memset(info, 0xee, sizeof(*info));
	info->size = sizeof(*info);
	errno = 0;
	return barlease_recv(f->to, info);
}

static void check_refused(const struct fixture *f, int error)
{
	struct barlease_info info, before;

	assert_int_equal(receive(f, &info), -1);
	assert_int_equal(errno, error);
	memset(&before, 0xee, sizeof(before));
	before.size = sizeof(before);
	assert_memory_equal(&info, &before, sizeof(info));
	assert_int_equal(count_fds(), f->fds);
}

/*
 * What arrives
 */

static void check_sample_arrives(const struct fixture *f)
{
	struct barlease_info info;
	struct stat sent, got;
	int fd = receive(f, &info);

	assert_return_code(fd, errno);
	assert_memory_equal(&info, &sample, sizeof(info));
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fstat(f->file, &sent), 0);
	assert_int_equal(fstat(fd, &got), 0);
	assert_int_equal(got.st_ino, sent.st_ino);
	close(fd);
}

static void a_lease_arrives(void **state)
{
	struct fixture *f = *state;

	/* Thrice, so that each message is known to end where the next begins. */
	for (int i = 0; i < 3; i++)
		assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
	for (int i = 0; i < 3; i++)
		check_sample_arrives(f);
	/* The sender's own fd is still there. */
	assert_return_code(fcntl(f->file, F_GETFD), errno);
}

static void every_state_and_access_arrives(void **state)
{
	struct fixture *f = *state;
	struct barlease_info sent = sample, got;
	int fd;

	for (int i = 0; i < 8; i++) {
		sent.state = i & 1;
		sent.memattr = i >> 1 & 1;
		sent.access = i & 4 ? O_RDWR : O_RDONLY;
		assert_int_equal(barlease_send(f->from, f->file, &sent), 0);
		fd = receive(f, &got);
		assert_return_code(fd, errno);
		close(fd);
		assert_memory_equal(&got, &sent, sizeof(got));
	}
}

static void a_receiver_that_wants_credentials_gets_the_lease(void **state)
{
	struct fixture *f = *state;
	int on = 1;

	assert_int_equal(setsockopt(f->to, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)),
			 0);
	assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
	check_sample_arrives(f);
}

/* The pidfd that comes with it is not left behind, whatever the message is. */
static void a_receiver_that_wants_a_pidfd_gets_the_lease(void **state)
{
	struct fixture *f = *state;
	int on = 1;

	assert_int_equal(setsockopt(f->to, SOL_SOCKET, SO_PASSPIDFD, &on, sizeof(on)),
			 0);
	assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
	check_sample_arrives(f);
	send_raw(f, "no lease", 8, 1);
	check_refused(f, EPROTO);
}

static void a_caller_of_a_later_release_sees_zeroes(void **state)
{
	struct fixture *f = *state;
	struct {
		struct barlease_info info;
		char more[64];
	} later;
	char zeroes[sizeof(later.more)] = { 0 };
	int fd;

	memset(&later, 0xee, sizeof(later));
	later.info.size = sizeof(later);
	assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
	fd = barlease_recv(f->to, &later.info);
	assert_return_code(fd, errno);
	close(fd);
	assert_int_equal(later.info.size, sizeof(later));
	assert_int_equal(later.info.faults, sample.faults);
	assert_memory_equal(later.more, zeroes, sizeof(zeroes));
}

/* What it says besides is for those who know it. */
static void a_sender_of_a_later_release_is_understood(void **state)
{
	struct fixture *f = *state;
	struct raw raw = raw_message(&sample);

	for (uint32_t size = sizeof(sample) + 8; INFO_AT + size <= sizeof(raw.bytes);
	     size += 8) {
		memcpy(raw.bytes + INFO_AT, &size, sizeof(size));
		memset(raw.bytes + INFO_AT + sizeof(sample), 0xee,
		       size - sizeof(sample));
		send_raw(f, raw.bytes, INFO_AT + size, 1);
		check_sample_arrives(f);
	}
}

static void a_caller_of_an_earlier_release_gets_what_it_knows(void **state)
{
	struct fixture *f = *state;
	uint32_t size = offsetof(struct barlease_info, va_hint);
	struct barlease_info info = sample, want = sample;
	int fd;

	/* What it does not say is unknown, or 0. */
	info.size = size;
	assert_int_equal(barlease_send(f->from, f->file, &info), 0);
	want.va_hint = BARLEASE_VA_HINT_UNKNOWN;
	want.faults = 0;
	memset(&info, 0xee, sizeof(info));
	info.size = sizeof(info);
	fd = barlease_recv(f->to, &info);
	assert_return_code(fd, errno);
	close(fd);
	assert_memory_equal(&info, &want, sizeof(info));

	/* What it has no room for is left alone. */
	assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
	memset(&info, 0xee, sizeof(info));
	info.size = size;
	fd = barlease_recv(f->to, &info);
	assert_return_code(fd, errno);
	close(fd);
	assert_int_equal(info.size, size);
	assert_memory_equal((char *)&info + 4, (const char *)&sample + 4, size - 4);
	assert_int_equal(info.va_hint, 0xeeeeeeeeeeeeeeee);
	assert_int_equal(info.faults, 0xeeeeeeeeeeeeeeee);
}

static void a_byte_that_is_not_known_is_einval(void **state)
{
	struct fixture *f = *state;
	struct {
		struct barlease_info info;
		char more[64];
	} later = { .info = sample };

	later.info.size = sizeof(later);
	for (size_t at = 0; at < sizeof(later.more); at++) {
		later.more[at] = 1;
		assert_int_equal(barlease_send(f->from, f->file, &later.info), -1);
		assert_int_equal(errno, EINVAL);
		later.more[at] = 0;
	}
	assert_int_equal(barlease_send(f->from, f->file, &later.info), 0);
	check_sample_arrives(f);
}

static void a_size_that_is_none_is_einval(void **state)
{
	static const uint32_t sizes[] = { 0, 1, 4, 7, 9, 12, 55, 57, 4104, UINT32_MAX };
	struct fixture *f = *state;
	struct barlease_info info = sample;

	assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		info.size = sizes[i];
		assert_int_equal(barlease_send(f->from, f->file, &info), -1);
		assert_int_equal(errno, EINVAL);
		assert_int_equal(barlease_recv(f->to, &info), -1);
		assert_int_equal(errno, EINVAL);
	}
	/* The message is still there, and it is the first one. */
	check_sample_arrives(f);
}

/*
 * What is refused
 */

static void a_closed_peer_is_econnreset(void **state)
{
	struct fixture *f = *state;

	close(f->from);
	f->from = -1;
	f->fds--;
	check_refused(f, ECONNRESET);
}

/* It is not the peer's fault, though the lease is gone. */
static void a_receiver_without_a_free_fd_is_emfile(void **state)
{
	struct fixture *f = *state;
	struct rlimit old, few;
	int next, got, error;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	assert_return_code(next = dup(f->file), errno);
	close(next);
	/* With all taken that it may have, and where it may have none. */
	few = (struct rlimit){ next, old.rlim_max };
	for (int i = 0; i < 2; i++) {
		assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
		assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		errno = 0;
		got = barlease_recv(f->to,
				    &(struct barlease_info){ .size = sizeof(sample) });
		error = errno;
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
		assert_int_equal(got, -1);
		assert_int_equal(error, EMFILE);
		check_sample_arrives(f);
		few.rlim_cur = 0;
	}
}

/* Of such a packet nothing tells that it is no end. */
static void an_empty_packet_is_econnreset(void **state)
{
	struct fixture *f = *state;

	send_raw(f, "", 0, 0);
	check_refused(f, ECONNRESET);
	assert_int_equal(barlease_send(f->from, f->file, &sample), 0);
	check_sample_arrives(f);
}

/* The default action of SIGPIPE would end the test here. */
static void sending_to_a_closed_peer_is_epipe(void **state)
{
	struct fixture *f = *state;
	int from = f->from;

	close(f->to);
	assert_int_equal(barlease_send(from, f->file, &sample), -1);
	assert_int_equal(errno, EPIPE);
	assert_return_code(f->to = dup(from), errno);
}

static void sending_what_is_no_fd_is_ebadf(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(barlease_send(f->from, -1, &sample), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(barlease_send(-1, f->file, &sample), -1);
	assert_int_equal(errno, EBADF);
}

static void receiving_without_a_message_is_eagain(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fcntl(f->to, F_SETFL, O_NONBLOCK), 0);
	check_refused(f, EAGAIN);
}

static void receiving_from_what_is_no_socket_is_refused(void **state)
{
	struct fixture *f = *state;
	struct barlease_info info = { .size = sizeof(info) };

	assert_int_equal(barlease_recv(-1, &info), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(barlease_recv(f->file, &info), -1);
	assert_int_equal(errno, ENOTSOCK);
}

/* poll() refuses it, too, and not as EMFILE. */
static void waiting_without_a_fd_to_get_is_emfile(void **state)
{
	struct fixture *f = *state;
	struct barlease_info info = { .size = sizeof(info) };
	struct rlimit old, none;
	int got, error;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ 0, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	got = barlease_recv(f->to, &info);
	error = errno;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(got, -1);
	assert_int_equal(error, EMFILE);
}

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

static void any_number_of_fds_but_one_is_eproto(void **state)
{
	struct fixture *f = *state;
	struct raw raw = raw_message(&sample);

	for (int nr = 0; nr <= MANY_FDS; nr++) {
		if (nr == 1)
			continue;
		send_raw(f, raw.bytes, raw.length, nr);
		check_refused(f, EPROTO);
	}
	send_raw(f, raw.bytes, raw.length, 1);
	check_sample_arrives(f);
}

static void a_message_that_is_too_short_is_eproto(void **state)
{
	struct fixture *f = *state;
	struct raw raw = raw_message(&sample);

	for (size_t length = 1; length < raw.length; length++) {
		send_raw(f, raw.bytes, length, 1);
		check_refused(f, EPROTO);
	}
}

static void an_empty_packet_with_an_fd_is_eproto(void **state)
{
	struct fixture *f = *state;

	send_raw(f, "", 0, 1);
	check_refused(f, EPROTO);
}

static void a_packet_that_is_too_long_is_eproto(void **state)
{
	struct fixture *f = *state;
	struct raw raw = raw_message(&sample);

	memset(raw.bytes + raw.length, 0, sizeof(raw.bytes) - raw.length);
	for (size_t length = raw.length + 1; length <= sizeof(raw.bytes); length++) {
		send_raw(f, raw.bytes, length, 1);
		check_refused(f, EPROTO);
	}
}

static void what_has_no_fd_in_a_stream_is_eproto(void **state)
{
	struct fixture *f = *state;
	struct raw raw = raw_message(&sample);

	send_raw(f, raw.bytes, raw.length, 1);
	send_raw(f, raw.bytes, raw.length, 0);
	check_sample_arrives(f);
	check_refused(f, EPROTO);
}

static void a_size_that_is_not_the_messages_is_eproto(void **state)
{
	struct fixture *f = *state;
	struct raw raw = raw_message(&sample);

	for (uint32_t size = 0; size < 2 * raw.length; size++) {
		if (size == sizeof(sample))
			continue;
		memcpy(raw.bytes + INFO_AT, &size, sizeof(size));
		send_raw(f, raw.bytes, raw.length, 1);
		check_refused(f, EPROTO);
	}
}

static void values_of_no_lease_are_eproto(void **state)
{
	struct fixture *f = *state;
	struct barlease_info infos[] = { sample, sample, sample, sample, sample };

	infos[0].state = BARLEASE_STATE_REVOKED + 1;
	infos[1].memattr = BARLEASE_MEMATTR_WC + 1;
	infos[2].access = O_WRONLY;
	infos[3].access = O_ACCMODE;
	infos[4].access = O_RDWR | O_CLOEXEC;
	for (size_t i = 0; i < ARRAY_SIZE(infos); i++) {
		struct raw raw = raw_message(&sample);

		assert_int_equal(barlease_send(f->from, f->file, &infos[i]), -1);
		assert_int_equal(errno, EINVAL);
		memcpy(raw.bytes + INFO_AT, &infos[i], sizeof(infos[i]));
		send_raw(f, raw.bytes, raw.length, 1);
		check_refused(f, EPROTO);
	}
}

static void another_magic_is_eproto(void **state)
{
	struct fixture *f = *state;

	for (int bit = 0; bit < 8 * INFO_AT; bit++) {
		struct raw raw = raw_message(&sample);

		raw.bytes[bit / 8] ^= 1 << bit % 8;
		send_raw(f, raw.bytes, raw.length, 1);
		check_refused(f, EPROTO);
	}
}

/* Whatever comes, it is refused, or one fd and values that can be. */
static void random_messages_leave_nothing_behind(void **state)
{
	struct fixture *f = *state;
	int taken = 0;

	random_seed();
	for (int i = 0; i < 20000; i++) {
		struct raw raw = raw_message(&sample);
		struct barlease_info info;
		int nr = random_below(8) ? 1 : random_below(4), fd;

		for (uint64_t flips = random_below(4); flips; flips--)
			raw.bytes[random_below(raw.length)] ^= 1 << random_below(8);
		if (!random_below(4))
			raw.length = 1 + random_below(sizeof(raw.bytes));
		send_raw(f, raw.bytes, raw.length, nr);
		fd = receive(f, &info);
		if (fd < 0) {
			assert_int_equal(errno, EPROTO);
			continue;
		}
		taken++;
		close(fd);
		assert_int_equal(nr, 1);
		assert_in_range(info.state, 0, BARLEASE_STATE_REVOKED);
		assert_in_range(info.memattr, 0, BARLEASE_MEMATTR_WC);
		assert_true(info.access == O_RDONLY || info.access == O_RDWR);
	}
	assert_in_range(taken, 1, 19999);
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

static const char *no_pidfds(void)
{
	int on = 1, sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int ret = setsockopt(sock, SOL_SOCKET, SO_PASSPIDFD, &on, sizeof(on));
	int error = ret ? errno : 0;

	close(sock);
	return error == ENOPROTOOPT ? "SO_PASSPIDFD is since Linux 6.5" : NULL;
}

#define STREAM(test)  cmocka_unit_test_setup_teardown(test, setup_stream, teardown)
#define PACKETS(test) cmocka_unit_test_setup_teardown(test, setup_packets, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		STREAM(a_lease_arrives),
		STREAM(every_state_and_access_arrives),
		STREAM(a_receiver_that_wants_credentials_gets_the_lease),
		unless(no_pidfds(),
		       (struct CMUnitTest)STREAM(
			       a_receiver_that_wants_a_pidfd_gets_the_lease)),
		STREAM(a_caller_of_a_later_release_sees_zeroes),
		STREAM(a_caller_of_an_earlier_release_gets_what_it_knows),
		STREAM(a_sender_of_a_later_release_is_understood),
		STREAM(a_byte_that_is_not_known_is_einval),
		STREAM(a_size_that_is_none_is_einval),
		STREAM(a_closed_peer_is_econnreset),
		STREAM(a_receiver_without_a_free_fd_is_emfile),
		STREAM(sending_to_a_closed_peer_is_epipe),
		STREAM(sending_what_is_no_fd_is_ebadf),
		STREAM(receiving_without_a_message_is_eagain),
		STREAM(receiving_from_what_is_no_socket_is_refused),
		STREAM(waiting_without_a_fd_to_get_is_emfile),
		STREAM(a_wait_is_no_longer_than_the_socket_says),
		STREAM(any_number_of_fds_but_one_is_eproto),
		STREAM(a_message_that_is_too_short_is_eproto),
		STREAM(what_has_no_fd_in_a_stream_is_eproto),
		STREAM(a_size_that_is_not_the_messages_is_eproto),
		STREAM(values_of_no_lease_are_eproto),
		STREAM(another_magic_is_eproto),
		STREAM(a_signal_does_not_end_the_wait),
		UNLESS_ASAN(a_thread_can_be_cancelled_while_it_waits, setup_stream,
			    teardown),
		UNLESS_ASAN(a_thread_that_was_cancelled_receives_nothing, setup_stream,
			    teardown),
		UNLESS_ASAN(a_thread_cancelled_by_then_leaves_no_fd, setup_stream,
			    teardown),
		PACKETS(a_lease_arrives),
		PACKETS(any_number_of_fds_but_one_is_eproto),
		PACKETS(a_message_that_is_too_short_is_eproto),
		PACKETS(an_empty_packet_with_an_fd_is_eproto),
		PACKETS(an_empty_packet_is_econnreset),
		PACKETS(a_packet_that_is_too_long_is_eproto),
		PACKETS(a_sender_of_a_later_release_is_understood),
		PACKETS(a_closed_peer_is_econnreset),
		PACKETS(receiving_without_a_message_is_eagain),
		PACKETS(a_wait_is_no_longer_than_the_socket_says),
		PACKETS(threads_that_wait_together_get_a_message_each),
		PACKETS(random_messages_leave_nothing_behind),
	};

	return cmocka_run_group_tests_name("pass", tests, NULL, NULL);
}
