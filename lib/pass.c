// SPDX-License-Identifier: MIT
/*
 * pass.c - hand a lease to another process over a Unix socket: one message,
 * one fd. The receiver believes nothing that it has not checked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_uapi.h"
#include "sized.h"

#define MAGIC 0x31534c42 /* "BLS1" */

/* Fixed and without holes, so that 32 and 64-bit programs understand each other. */
struct message {
	uint32_t magic;
	uint32_t state;
	uint64_t id;
	uint64_t length;
	uint64_t va_hint;
	uint64_t faults;
	uint32_t nr_ranges;
	uint32_t nr_spans;
	uint32_t memattr;
	uint32_t access;
};

_Static_assert(sizeof(struct message) == 56, "the message has a hole");

/*
 * Room for one fd, for what a socket option of the receiver's may add, and for a
 * second fd that gives a bad sender away; the kernel drops what does not fit.
 */
union control {
	struct cmsghdr align;
	char bytes[256];
};

int barlease_send(int sock, int lease_fd, const struct barlease_info *info)
{
	union control control = { 0 };
	struct message message;
	struct iovec iov = { &message, sizeof(message) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(sizeof(int)),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	struct barlease_info known = { .va_hint = BARLEASE_VA_HINT_UNKNOWN };
	ssize_t sent;

	if (barlease_sized_in(&known, sizeof(known), info))
		return -1;
	message = (struct message){
		.magic = MAGIC,
		.state = known.state,
		.id = known.id,
		.length = known.length,
		.va_hint = known.va_hint,
		.faults = known.faults,
		.nr_ranges = known.nr_ranges,
		.nr_spans = known.nr_spans,
		.memattr = known.memattr,
		.access = known.access,
	};
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &lease_fd, sizeof(int));

	do {
		sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return -1;
	if (sent != sizeof(message)) {
		errno = EPROTO;
		return -1;
	}
	return 0;
}

#ifndef SCM_PIDFD
#define SCM_PIDFD 4 /* Linux 6.5 */
#endif

/*
 * Returns the message's fd if it carries exactly one; else closes all it carries.
 * A pidfd, which a receiver with SO_PASSPIDFD gets of the kernel, is none of them
 * and closed.
 */
static int take_fd(struct msghdr *msg)
{
	int fd, first = -1, count = 0;

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg;
	     cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t len = cmsg->cmsg_len - CMSG_LEN(0);

		if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_PIDFD) {
			memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
			if (fd >= 0)
				close(fd);
		}
		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + sizeof(fd) <= len; at += sizeof(fd)) {
			memcpy(&fd, CMSG_DATA(cmsg) + at, sizeof(fd));
			if (count++ == 0)
				first = fd;
			else
				close(fd);
		}
	}
	if (count > 1) {
		close(first);
		return -1;
	}
	return first;
}

/* Then the kernel drops the fds of a message, and says as much as of too many. */
static bool is_out_of_fds(int sock)
{
	int fd = fcntl(sock, F_DUPFD_CLOEXEC, 0);

	if (fd >= 0)
		close(fd);
	/* Where it may have none at all, 0 is no number to begin from. */
	else if (errno == EINVAL)
		errno = EMFILE;
	return fd < 0;
}

static bool message_valid(const struct message *message)
{
	return message->magic == MAGIC && message->state <= BARLEASE_STATE_REVOKED &&
	       message->memattr <= BARLEASE_MEMATTR_WC &&
	       (message->access == O_RDONLY || message->access == O_RDWR);
}

int barlease_recv(int sock, struct barlease_info *info)
{
	union control control;
	struct barlease_info known;
	struct message message;
	struct iovec iov = { &message, sizeof(message) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t got;
	int fd;

	if (!barlease_size_valid(info)) {
		errno = EINVAL;
		return -1;
	}
	do {
		got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -1;

	fd = take_fd(&msg);
	if (got == 0 && fd < 0) {
		errno = ECONNRESET;
		return -1;
	}
	if (fd < 0 && msg.msg_flags & MSG_CTRUNC && is_out_of_fds(sock))
		return -1;
	/* The sender's one sendmsg() comes whole, on a stream too. */
	if (fd < 0 || got != sizeof(message) ||
	    msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || !message_valid(&message)) {
		if (fd >= 0)
			close(fd);
		errno = EPROTO;
		return -1;
	}

	known = (struct barlease_info){
		.state = message.state,
		.id = message.id,
		.length = message.length,
		.nr_ranges = message.nr_ranges,
		.nr_spans = message.nr_spans,
		.memattr = message.memattr,
		.access = message.access,
		.va_hint = message.va_hint,
		.faults = message.faults,
	};
	barlease_sized_out(info, &known, sizeof(known));
	return fd;
}
