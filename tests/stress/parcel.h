/* SPDX-License-Identifier: MIT */
/*
 * parcel.h - pass a lease and its terms to a lessee's inbox.
 */
#ifndef PARCEL_H
#define PARCEL_H

#include "world.h"

/* An inbox a lessee, and one for the holder of the quiet lease. They outlive
 * the processes that use them. */
enum { QUIET_INBOX = NR_LESSEES, NR_INBOXES };

struct inboxes {
	int in[NR_INBOXES], out[NR_INBOXES];
};

void inboxes_open(struct inboxes *boxes);
/* What is still in them is gone. */
void inboxes_close(struct inboxes *boxes);

/* 0, or an errno: EAGAIN where the inbox is full. */
int parcel_send(int in, int fd, const struct terms *terms);
/* The fd, or -1 with errno: EAGAIN where the inbox is empty. */
int parcel_receive(int out, struct terms *terms, bool wait);

#endif /* PARCEL_H */
