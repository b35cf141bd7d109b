// SPDX-License-Identifier: MIT
/*
 * parcel.c - pass a lease and its terms to a lessee's inbox.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "parcel.h"

union control {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int))];
};

void inboxes_open(struct inboxes *boxes)
{
	for (int i = 0; i < NR_INBOXES; i++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
			perror("stress: socketpair");
			exit(2);
		}
		boxes->in[i] = pair[0];
		boxes->out[i] = pair[1];
	}
}

void inboxes_close(struct inboxes *boxes)
{
	for (int i = 0; i < NR_INBOXES; i++) {
		close(boxes->in[i]);
		close(boxes->out[i]);
	}
}

int parcel_send(int in, int fd, const struct terms *terms)
{
	struct iovec data = { (void *)terms, sizeof(*terms) };
	union control control = { .header = { .cmsg_level = SOL_SOCKET,
					      .cmsg_type = SCM_RIGHTS,
					      .cmsg_len = CMSG_LEN(sizeof(int)) } };
	struct msghdr message = { .msg_iov = &data,
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };

	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	return sendmsg(in, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}

int parcel_receive(int out, struct terms *terms, bool wait)
{
	/* cppcheck-suppress ctuuninitvar ; it is what is received to */
	struct iovec data = { terms, sizeof(*terms) };
	union control control = { 0 };
	struct msghdr message = { .msg_iov = &data,
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	int fd;

	if (recvmsg(out, &message, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT)) < 0)
		return -1;
	if (message.msg_controllen < sizeof(control)) {
		/* No room for the fd: this process has too many. */
		errno = EMFILE;
		return -1;
	}
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}
