// SPDX-License-Identifier: MIT
/*
 * held.c - the leases that a lessee has an fd of, shared by its threads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "held.h"
#include "parcel.h"

static struct held held[NR_HELD];
static pthread_mutex_t held_lock = PTHREAD_MUTEX_INITIALIZER;

void held_prepare(void)
{
	for (int i = 0; i < NR_HELD; i++)
		held[i].fd = -1;
}

struct held *held_enter(uint64_t pick)
{
	struct held *h = &held[pick % NR_HELD];

	pthread_mutex_lock(&held_lock);
	if (h->fd < 0)
		h = NULL;
	else
		h->users++;
	pthread_mutex_unlock(&held_lock);
	return h;
}

void held_leave(struct held *h)
{
	pthread_mutex_lock(&held_lock);
	h->users--;
	pthread_mutex_unlock(&held_lock);
}

void held_close(struct held *h)
{
	struct terms terms;
	int fd = -1;

	pthread_mutex_lock(&held_lock);
	if (!h->users) {
		fd = h->fd;
		h->fd = -1;
	}
	terms = h->terms;
	pthread_mutex_unlock(&held_lock);
	if (fd < 0)
		return;
	op_begin(OP_CLOSE, &terms, -1, 0, 0);
	close(fd);
	op_end(OP_CLOSE, &terms, -1, 0);
}

struct held *held_receive(int inbox)
{
	struct held *h = NULL;
	struct terms terms;
	int fd;

	pthread_mutex_lock(&held_lock);
	for (int i = 0; i < NR_HELD && !h; i++)
		if (held[i].fd < 0)
			h = &held[i];
	if (h) {
		fd = parcel_receive(inbox, &terms, false);
		if (fd < 0 && errno != EAGAIN)
			fail(-1, -1, "receive: expected a lease, saw %s",
			     errno_name(errno));
		if (fd < 0) {
			h = NULL;
		} else {
			h->fd = fd;
			h->terms = terms;
			h->users++;
			/* It was another's until now, so it overlapped nothing. */
			op_begin(OP_RECEIVE, NULL, -1, 0, 0);
			op_end(OP_RECEIVE, &terms, -1, 0);
		}
	}
	pthread_mutex_unlock(&held_lock);
	return h;
}
