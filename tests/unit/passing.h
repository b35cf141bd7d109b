/* SPDX-License-Identifier: MIT */
/*
 * passing.h - two ends of a socket, over which the library passes leases, or a peer
 * that makes up its own messages.
 */
#ifndef PASSING_H
#define PASSING_H

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_uapi.h"
#include "unit.h"

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

static inline int setup(void **state, int type)
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

static inline int setup_stream(void **state)
{
	return setup(state, SOCK_STREAM);
}

static inline int setup_packets(void **state)
{
	return setup(state, SOCK_SEQPACKET);
}

/* Every test ends with the fds it began with. */
static inline int teardown(void **state)
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
static inline struct raw raw_message(const struct barlease_info *info)
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

static inline void send_raw(const struct fixture *f, const void *bytes, size_t length,
			    int nr)
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

static inline int receive(const struct fixture *f, struct barlease_info *info)
{
	memset(info, 0xee, sizeof(*info));
	info->size = sizeof(*info);
	errno = 0;
	return barlease_recv(f->to, info);
}

static inline void check_refused(const struct fixture *f, int error)
{
	struct barlease_info info, before;

	assert_int_equal(receive(f, &info), -1);
	assert_int_equal(errno, error);
	memset(&before, 0xee, sizeof(before));
	before.size = sizeof(before);
	assert_memory_equal(&info, &before, sizeof(info));
	assert_int_equal(count_fds(), f->fds);
}

static inline void check_sample_arrives(const struct fixture *f)
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

#define STREAM(test)  cmocka_unit_test_setup_teardown(test, setup_stream, teardown)
#define PACKETS(test) cmocka_unit_test_setup_teardown(test, setup_packets, teardown)

#endif /* PASSING_H */
