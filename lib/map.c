// SPDX-License-Identifier: MIT
/* map.c - what a lessee does with a lease: map it where huge pages fit, prefault. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/dma-buf.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "barlease.h"

/* Other threads may take an address between its choice and its use. */
#define TRIES 8

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

void *barlease_mmap(int lease_fd, uint64_t offset, size_t length, int prot,
		    uint64_t va_hint)
{
	static const size_t aligns[] = { 1UL << 30, 1UL << 21 };

	for (int i = 0; i < 2 && va_hint != BARLEASE_VA_HINT_UNKNOWN; i++) {
		for (int tries = 0; tries < TRIES; tries++) {
			void *map, *want = find_address(length, va_hint + offset,
							aligns[i]);

			if (!want)
				break;
			map = mmap(want, length, prot, MAP_SHARED | MAP_FIXED_NOREPLACE,
				   lease_fd, offset);
			if (map != MAP_FAILED || errno != EEXIST)
				return map;
		}
	}
	return mmap(NULL, length, prot, MAP_SHARED, lease_fd, offset);
}

int barlease_prefault(int lease_fd)
{
	struct dma_buf_sync sync = { .flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW };

	return ioctl(lease_fd, DMA_BUF_IOCTL_SYNC, &sync);
}
