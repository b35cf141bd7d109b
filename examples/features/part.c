// SPDX-License-Identifier: MIT
/*
 * part.c - a map of one page in the middle of a lease.
 *
 * Usage: part ADDRESS
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_device.h"

#define BAR   2 /* QEMU's "ivshmem" has memory there */
#define PAGES 4

int main(int argc, char *argv[])
{
	const uint64_t page = sysconf(_SC_PAGESIZE);
	const struct barlease_range range = { 0, PAGES * page };
	struct barlease_map_options options = { .size = sizeof(options),
						.offset = 2 * page,
						.length = page,
						.va_hint = BARLEASE_VA_HINT_UNKNOWN };
	struct barlease_device dev;
	struct barlease_map *map;
	int lease;

	if (argc != 2)
		errx(2, "usage: part ADDRESS");
	if (barlease_device_open(&dev, argv[1]))
		err(1, "%s", argv[1]);
	lease = barlease_export(dev.device_fd, BAR, &range, 1, O_RDWR);
	if (lease < 0)
		err(1, "export");
	for (uint32_t i = 0; i < PAGES; i++)
		if (pwrite(dev.device_fd, &i, sizeof(i),
			   dev.bars[BAR].offset + i * page) != sizeof(i))
			err(1, "BAR");

	map = barlease_map(lease, &options);
	if (!map)
		err(1, "map");
	/* Its offsets count from its own beginning. */
	if (barlease_map_length(map) != page || barlease_read32(map, 0) != 2)
		errx(1, "it is another page");
	printf("page 0 of the map is page 2 of the lease\n");
	if (barlease_read32(map, page) != UINT32_MAX || barlease_map_lost(map))
		errx(1, "it has more than that page");
	printf("behind it: ones, and the map is not lost\n");

	options.offset = PAGES * page;
	if (barlease_map(lease, &options) || errno != EINVAL)
		errx(1, "what is not of the lease can be mapped");
	printf("map what is not of the lease: EINVAL\n");

	if (barlease_unmap(map))
		err(1, "unmap");
	close(lease);
	barlease_device_close(&dev);
	return 0;
}
