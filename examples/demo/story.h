/* SPDX-License-Identifier: MIT */
/* story.h - what all actors of the demo know: the BAR, and who gets what of it. */
#ifndef STORY_H
#define STORY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "barlease.h"

#define BAR       2 /* of QEMU's ivshmem: memory, here 1 GiB */
#define PAGE_SIZE UINT64_C(4096)

/*
 * The lessor labels every leased page: its first word is the page's offset in
 * the BAR. The words after that are for the lessees to write.
 */
#define FREE_WORD UINT64_C(8)

#define LESSEES    3
#define MAX_RANGES 2

struct slice {
	const char *name;
	uid_t uid;  /* whose it is */
	int access; /* O_RDONLY or O_RDWR */
	size_t nr_ranges;
	struct barlease_range ranges[MAX_RANGES];
};

extern const struct slice slices[LESSEES];

/* NULL when there is no such slice. */
const struct slice *find_slice(const char *name);

uint64_t slice_length(const struct slice *slice);

/* Where in the BAR a byte of a slice lies. */
uint64_t bar_offset(const struct slice *slice, uint64_t offset);

#endif /* STORY_H */
