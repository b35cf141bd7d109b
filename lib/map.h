/* SPDX-License-Identifier: MIT */
/* map.h - what is behind the handle of a map. */
#ifndef BARLEASE_MAP_H
#define BARLEASE_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "owner.h"

struct barlease_map {
	char *addr;
	size_t length;   /* as the caller has it */
	size_t span;     /* in whole pages */
	uint64_t offset; /* in the lease */
	uint32_t flags;
	struct owner owner;        /* where a child has none */
	int fd;                    /* our own */
	struct survivor *survivor; /* NULL: it does not survive */
};

#endif /* BARLEASE_MAP_H */
