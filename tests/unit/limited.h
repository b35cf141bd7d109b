/* SPDX-License-Identifier: MIT */
/* limited.h - children that have a map, and little of what its loss needs. */
#ifndef LIMITED_H
#define LIMITED_H

#include <signal.h>
#include <sys/wait.h>

#include "barlease.h"
#include "lossy.h"

/* As much as one replacement covers, by the library's choice. */
#define PIECE (2UL << 20)

/* That the process can't be what the test needs. */
#define CAN_NOT 99

static struct barlease_map *map;
static int file;
static size_t stride = PIECE; /* from one place that is touched to the next */

/* What run returns, in a child with a map; or 1000 plus the signal it died of. */
static inline int in_child(int (*run)(void), size_t length)
{
	pid_t pid = fork();

	assert_return_code(pid, errno);
	if (!pid) {
		/* In place of cmocka's. */
		signal(SIGBUS, SIG_DFL);
		file = lossy_file(0);
		cut(file, (length + page_size - 1) / page_size);
		map = map_survivor(file, 0, 0);
		_exit(map ? run() : CAN_NOT);
	}
	return end_of(pid);
}

/* Lose it, and touch all of it. */
static inline int lose(void)
{
	cut(file, 0);
	for (int round = 0; round < 2; round++) {
		for (size_t at = 0; at < barlease_map_length(map); at += stride) {
			if (load(barlease_map_addr(map), at) != ONES)
				return 1;
		}
	}
	return barlease_map_lost(map) ? 0 : 2;
}

#endif /* LIMITED_H */
