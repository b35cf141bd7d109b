// SPDX-License-Identifier: MIT
/*
 * pass_test.c - a lease passed over a socket arrives whole, and no message of a
 * hostile peer gets an fd, or a leak, into the receiver.
 */
#define _GNU_SOURCE
#include <sys/resource.h>

#include "passing.h"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76 /* Linux 6.5 */
#endif

/*
 * What arrives
 */

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

static const char *no_pidfds(void)
{
	int on = 1, sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int ret = setsockopt(sock, SOL_SOCKET, SO_PASSPIDFD, &on, sizeof(on));
	int error = ret ? errno : 0;

	close(sock);
	return error == ENOPROTOOPT ? "SO_PASSPIDFD is since Linux 6.5" : NULL;
}

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
		STREAM(any_number_of_fds_but_one_is_eproto),
		STREAM(a_message_that_is_too_short_is_eproto),
		STREAM(what_has_no_fd_in_a_stream_is_eproto),
		STREAM(a_size_that_is_not_the_messages_is_eproto),
		STREAM(values_of_no_lease_are_eproto),
		STREAM(another_magic_is_eproto),
		PACKETS(a_lease_arrives),
		PACKETS(any_number_of_fds_but_one_is_eproto),
		PACKETS(a_message_that_is_too_short_is_eproto),
		PACKETS(an_empty_packet_with_an_fd_is_eproto),
		PACKETS(an_empty_packet_is_econnreset),
		PACKETS(a_packet_that_is_too_long_is_eproto),
		PACKETS(a_sender_of_a_later_release_is_understood),
		PACKETS(a_closed_peer_is_econnreset),
		PACKETS(receiving_without_a_message_is_eagain),
		PACKETS(random_messages_leave_nothing_behind),
	};

	return cmocka_run_group_tests_name("pass", tests, NULL, NULL);
}
