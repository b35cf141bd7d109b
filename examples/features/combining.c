// SPDX-License-Identifier: MIT
/*
 * combining.c - a lease that is mapped write-combining: the CPU may gather stores
 * and send them together, until it is told to let go of them.
 *
 * Usage: combining ADDRESS
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_device.h"
#include "barlease_mmio.h"
#include "barlease_uapi.h"

#define BAR   2 /* QEMU's "ivshmem" has memory there */
#define WORDS 8 /* a line of 64 bytes */

int main(int argc, char *argv[])
{
	struct barlease_range range = { 0, sysconf(_SC_PAGESIZE) };
	struct barlease_info info = { .size = sizeof(info) };
	struct barlease_device dev;
	struct barlease_map *map;
	uint64_t seen[WORDS];
	int lease;

	if (argc != 2)
		errx(2, "usage: combining ADDRESS");
	if (barlease_device_open(&dev, argv[1]))
		err(1, "%s", argv[1]);
	lease = barlease_export(dev.device_fd, BAR, &range, 1, O_RDWR);
	if (lease < 0)
		err(1, "export");

	/* It is the owner who decides, for the maps that are made from now on. */
	if (barlease_set_memattr(dev.device_fd, lease, BARLEASE_MEMATTR_WC) ||
	    barlease_get_info(dev.device_fd, lease, &info))
		err(1, "memory attribute");
	if (info.memattr != BARLEASE_MEMATTR_WC)
		errx(1, "the lease is not write-combining");
	map = barlease_map(lease, NULL);
	if (!map)
		err(1, "map");

	for (uint64_t i = 0; i < WORDS; i++)
		barlease_write64(map, 8 * i, i * i);
	barlease_wc_flush();
	printf("stored %d words, and flushed them\n", WORDS);

	if (pread(dev.device_fd, seen, sizeof(seen), dev.bars[BAR].offset) !=
	    sizeof(seen))
		err(1, "BAR");
	for (uint64_t i = 0; i < WORDS; i++)
		if (seen[i] != i * i)
			errx(1, "a word is missing");
	printf("the owner finds all of them in the BAR\n");

	if (barlease_unmap(map))
		err(1, "unmap");
	close(lease);
	barlease_device_close(&dev);
	return 0;
}
