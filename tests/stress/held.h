/* SPDX-License-Identifier: MIT */
/*
 * held.h - the leases that a lessee has an fd of, shared by its threads.
 */
#ifndef HELD_H
#define HELD_H

#include "world.h"

enum { NR_HELD = 8 };

struct held {
	int fd; /* -1: none */
	unsigned int users;
	struct terms terms;
};

void held_prepare(void);

/* One of them, which nobody closes until held_leave(); NULL: there is none. */
struct held *held_enter(uint64_t pick);
void held_leave(struct held *h);
/* Close the fd, if nobody uses it. */
void held_close(struct held *h);
/* Like held_enter() for one from the inbox, if there is one, and room for it. */
struct held *held_receive(int inbox);

#endif /* HELD_H */
