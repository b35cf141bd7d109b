/* SPDX-License-Identifier: MIT */
/* place.h - map a lease at an address where the kernel can use its largest pages. */
#ifndef BARLEASE_PLACE_H
#define BARLEASE_PLACE_H

#include <stddef.h>
#include <stdint.h>

/*
 * mmap() length bytes, shared, from offset on, for a lease whose first byte has
 * va_hint. Whatever the hint, it fails only where mmap() would: MAP_FAILED.
 */
void *barlease_place(int lease_fd, uint64_t offset, size_t length, int prot,
		     uint64_t va_hint);

#endif /* BARLEASE_PLACE_H */
