/* SPDX-License-Identifier: MIT */
/*
 * sized.h - take and give structs that start with their size, from and to
 * callers who may know a shorter or a longer one.
 *
 * Such a struct only ever grows at its end, by 8 bytes at a time, so that a
 * multiple of 8 cuts no field in two. What a caller does not know of has its
 * default. A struct with longer fields (barlease_binding) has a smallest size, too,
 * which its functions look at.
 */
#ifndef BARLEASE_SIZED_H
#define BARLEASE_SIZED_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* None will ever be longer: more than this is a size that was not set. */
#define BARLEASE_SIZE_MAX 4096

static inline bool barlease_size_valid(const void *given)
{
	uint32_t size;

	memcpy(&size, given, sizeof(size));
	return size >= 8 && size <= BARLEASE_SIZE_MAX && size % 8 == 0;
}

/*
 * Take a caller's struct over *ours, which holds the defaults. EINVAL: its size
 * is none, or it asks for something that this library does not know of.
 */
static inline int barlease_sized_in(void *ours, uint32_t our_size, const void *given)
{
	uint32_t size;

	if (!barlease_size_valid(given))
		goto fail;
	memcpy(&size, given, sizeof(size));
	for (uint32_t at = our_size; at < size; at++) {
		if (((const char *)given)[at])
			goto fail;
	}
	memcpy(ours, given, size < our_size ? size : our_size);
	return 0;

fail:
	errno = EINVAL;
	return -1;
}

/* Give *ours to a caller, whose size was seen to be valid; what we lack is 0. */
static inline void barlease_sized_out(void *given, const void *ours, uint32_t our_size)
{
	uint32_t size;

	memcpy(&size, given, sizeof(size));
	memset(given, 0, size);
	memcpy(given, ours, size < our_size ? size : our_size);
	memcpy(given, &size, sizeof(size));
}

#endif /* BARLEASE_SIZED_H */
