// SPDX-License-Identifier: MIT
/*
 * pass.c - hand a lease to another process over a Unix socket: one message,
 * one fd. The receiver believes nothing that it has not checked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_uapi.h"
#include "sized.h"

#define MAGIC 0x00455341454c5242 /* "BRLEASE" */

/*
 * The information as it is, which tells its size: a later library's may be longer, of
 * which an earlier one leaves the rest. Without holes, which tell of the stack.
 */
struct message {
	uint64_t magic;
	struct barlease_info info;
};

_Static_assert(sizeof(struct message) == 64, "the message has a hole");

static bool info_valid(const struct barlease_info *info)
{
	return info->state <= BARLEASE_STATE_REVOKED &&
	       info->memattr <= BARLEASE_MEMATTR_WC &&
	       (info->access == O_RDONLY || info->access == O_RDWR);
}

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
	struct message message = {
		.magic = MAGIC,
		.info = { .va_hint = BARLEASE_VA_HINT_UNKNOWN },
	};
	struct iovec iov = { &message, sizeof(message) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(sizeof(int)),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	ssize_t sent;

	if (barlease_sized_in(&message.info, sizeof(message.info), info))
		return -1;
	message.info.size = sizeof(message.info);
	if (!info_valid(&message.info)) {
		errno = EINVAL;
		return -1;
	}
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

/* All that came, be it more than we know of. */
struct received {
	struct message known;
	char more[BARLEASE_SIZE_MAX - sizeof(struct barlease_info)];
};

static bool message_valid(const struct message *message, size_t length)
{
	return length >= sizeof(*message) && message->magic == MAGIC &&
	       message->info.size == length - offsetof(struct message, info) &&
	       barlease_size_valid(&message->info) && info_valid(&message->info);
}

/* The lease of what came, or -1 with all closed that came with it. */
static int take_lease(int sock, struct msghdr *msg, const struct received *received,
		      size_t length)
{
	int fd = take_fd(msg);

	if (length == 0 && fd < 0) {
		errno = ECONNRESET;
		return -1;
	}
	if (fd < 0 && msg->msg_flags & MSG_CTRUNC && is_out_of_fds(sock))
		return -1;
	/*
	 * The sender's one sendmsg() comes whole, and alone: on a stream, too, a read
	 * ends behind what has brought an fd.
	 */
	if (fd < 0 || msg->msg_flags & (MSG_TRUNC | MSG_CTRUNC) ||
	    !message_valid(&received->known, length)) {
		if (fd >= 0)
			close(fd);
		errno = EPROTO;
		return -1;
	}
	return fd;
}

/*
 * Until there may be something to receive, as recvmsg() itself waits: not at all on a
 * socket that does not block, and no longer than it says.
 */
static int wait_for_message(int sock)
{
	struct pollfd readable = { .fd = sock, .events = POLLIN };
	struct timeval limit = { 0 };
	socklen_t size = sizeof(limit);
	struct timespec time;
	int ready;

	if (fcntl(sock, F_GETFL) & O_NONBLOCK) {
		errno = EAGAIN;
		return -1;
	}
	/* What is no socket recvmsg() has refused. */
	getsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, &size);
	TIMEVAL_TO_TIMESPEC(&limit, &time);
	ready = ppoll(&readable, 1, timerisset(&limit) ? &time : NULL, NULL);
	if (ready == 0)
		errno = EAGAIN;
	/* Who may have no fd at all may not wait for one either. */
	if (ready < 0 && errno == EINVAL)
		errno = EMFILE;
	return ready > 0 || (ready < 0 && errno == EINTR) ? 0 : -1;
}

/*
 * recvmsg() for who has disabled cancellation, and had former before: glibc before
 * 2.41 ends a thread also when the message and its fds have come (bug 12683). So it
 * can be cancelled while it waits, which takes nothing, and not while it takes.
 * Another thread may have been faster; then it waits anew.
 */
static ssize_t receive(int sock, struct msghdr *msg, int former)
{
	ssize_t got;
	int waited;

	while ((got = recvmsg(sock, msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) < 0 &&
	       errno == EAGAIN) {
		pthread_setcancelstate(former, NULL);
		waited = wait_for_message(sock);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &former);
		if (waited)
			break;
	}
	return got;
}

int barlease_recv(int sock, struct barlease_info *info)
{
	union control control;
	struct received received;
	struct iovec iov = { &received, sizeof(received) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	int fd = -1, former;
	ssize_t got;

	if (!barlease_size_valid(info)) {
		errno = EINVAL;
		return -1;
	}
	/* Also where there is always a message, and no wait. */
	pthread_testcancel();
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &former);
	got = receive(sock, &msg, former);
	if (got >= 0)
		fd = take_lease(sock, &msg, &received, (size_t)got);
	pthread_setcancelstate(former, NULL);
	if (fd >= 0)
		barlease_sized_out(info, &received.known.info,
				   sizeof(received.known.info));
	return fd;
}
