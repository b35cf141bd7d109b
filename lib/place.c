// SPDX-License-Identifier: MIT
/* place.c - map a lease at an address where the kernel can use its largest pages. */
#define _GNU_SOURCE
#include "place.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "barlease.h"

/* A hint is known modulo this: huge pages that are larger it can't serve. */
#define HINT_MODULUS (1UL << 30)

/* Other threads may take an address between its choice and its use. */
#define TRIES 8

/* Does what begins at target, modulo align, hold one whole block of align bytes? */
static bool holds_block(uint64_t target, size_t length, size_t align)
{
	size_t before = -target & (align - 1);

	return before <= length && length - before >= align;
}

/*
 * Find a free range of addresses that is congruent to target, in whole pages,
 * modulo align. Returns NULL when there is none.
 */
static void *find_address(size_t length, uint64_t target, size_t align)
{
	size_t room, page_size = sysconf(_SC_PAGESIZE);
	char *free_range;

	if (__builtin_add_overflow(length, align, &room))
		return NULL;
	free_range = mmap(NULL, room, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (free_range == MAP_FAILED)
		return NULL;
	/*
	 * Mapping over the reservation would be simpler, but an mmap() that fails
	 * may or may not have removed what it was to replace: then nobody knows
	 * whose pages those are. So let go, and ask for the address politely.
	 */
	munmap(free_range, room);
	return free_range + ((target - (uintptr_t)free_range) & (align - page_size));
}

/* NULL: no such address is to be had. */
static void *place_aligned(int lease_fd, uint64_t offset, size_t length, int prot,
			   uint64_t target, size_t align)
{
	for (int tries = 0; tries < TRIES; tries++) {
		void *map, *want = find_address(length, target, align);

		if (!want)
			break;
		map = mmap(want, length, prot, MAP_SHARED | MAP_FIXED_NOREPLACE,
			   lease_fd, offset);
		if (map != MAP_FAILED || errno != EEXIST)
			return map;
	}
	return NULL;
}

void *barlease_place(int lease_fd, uint64_t offset, size_t length, int prot,
		     uint64_t va_hint)
{
	/* A page full of 8-byte entries, twice: what one of each level maps. */
	size_t page_size = sysconf(_SC_PAGESIZE), factor = page_size / 8;
	size_t aligns[] = { page_size * factor * factor, page_size * factor };
	uint64_t target = (va_hint + offset) & -(uint64_t)page_size;

	for (int i = 0; i < 2 && va_hint != BARLEASE_VA_HINT_UNKNOWN; i++) {
		void *map;

		if (aligns[i] > HINT_MODULUS || !holds_block(target, length, aligns[i]))
			continue;
		map = place_aligned(lease_fd, offset, length, prot, target, aligns[i]);
		if (map)
			return map;
	}
	return mmap(NULL, length, prot, MAP_SHARED, lease_fd, offset);
}
