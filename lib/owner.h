/* SPDX-License-Identifier: MIT */
/* owner.h - whose a mapping is that a child of fork() does not get. */
#ifndef BARLEASE_OWNER_H
#define BARLEASE_OWNER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct owner {
	pid_t pid;
	uint32_t forks;
};

/* This process. -1 with errno set: its children could not be told from it. */
int barlease_owner_set(struct owner *owner);

/* In a signal handler, too. */
bool barlease_owner_is_us(const struct owner *owner);

#endif /* BARLEASE_OWNER_H */
