/* SPDX-License-Identifier: MIT */
/*
 * info.h - hand a struct barlease_info to a caller who may know a shorter or a
 * longer one.
 */
#ifndef BARLEASE_INFO_H
#define BARLEASE_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "barlease.h"

/* The first release's struct: whoever offers less has not set size. */
#define BARLEASE_INFO_SIZE_MIN \
	(offsetof(struct barlease_info, faults) + sizeof(uint64_t))

static inline bool barlease_info_valid(const struct barlease_info *info)
{
	return info->size >= BARLEASE_INFO_SIZE_MIN;
}

static inline void barlease_info_fill(struct barlease_info *out,
				      const struct barlease_info *in)
{
	uint32_t size = out->size;

	memset(out, 0, size);
	memcpy(out, in, size < sizeof(*in) ? size : sizeof(*in));
	out->size = size;
}

#endif /* BARLEASE_INFO_H */
