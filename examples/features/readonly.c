// SPDX-License-Identifier: MIT
/*
 * readonly.c - a lease to read from: its holder sees what the owner writes, and
 * has no way to write itself.
 *
 * Usage: readonly ADDRESS
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_device.h"

#define BAR 2 /* QEMU's "ivshmem" has memory there */

int main(int argc, char *argv[])
{
	struct barlease_map_options options = { .size = sizeof(options) };
	struct barlease_range range = { 0, sysconf(_SC_PAGESIZE) };
	const uint32_t value = 0x5eed;
	struct barlease_device dev;
	struct barlease_map *map;
	int lease;

	if (argc != 2)
		errx(2, "usage: readonly ADDRESS");
	if (barlease_device_open(&dev, argv[1]))
		err(1, "%s", argv[1]);
	lease = barlease_export(dev.device_fd, BAR, &range, 1, O_RDONLY);
	if (lease < 0)
		err(1, "export");
	if (pwrite(dev.device_fd, &value, sizeof(value), dev.bars[BAR].offset) !=
	    sizeof(value))
		err(1, "BAR");

	if (barlease_map(lease, &options) || errno != EACCES)
		errx(1, "it can be mapped for stores");
	printf("mapped for stores: EACCES\n");

	options.flags = BARLEASE_MAP_READONLY;
	map = barlease_map(lease, &options);
	if (!map)
		err(1, "map");
	if (barlease_read32(map, 0) != value)
		errx(1, "it reads as something else");
	printf("mapped for loads: reads what the owner wrote\n");

	barlease_write32(map, 0, 0);
	if (barlease_read32(map, 0) != value)
		errx(1, "it was stored to");
	printf("barlease_write32(): dropped\n");

	if (!mprotect(barlease_map_addr(map), range.length, PROT_READ | PROT_WRITE) ||
	    errno != EACCES)
		errx(1, "it can be made writable");
	printf("mprotect(): EACCES\n");

	if (barlease_unmap(map))
		err(1, "unmap");
	close(lease);
	barlease_device_close(&dev);
	return 0;
}
