// SPDX-License-Identifier: MIT
/*
 * ranges.c - one lease of several ranges of a BAR: its holder has them end to end,
 * in the order given, and nothing of what is between them.
 *
 * Usage: ranges ADDRESS
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_device.h"

#define BAR 2 /* QEMU's "ivshmem" has memory there */

static void owner_writes(const struct barlease_device *dev, uint64_t at, uint32_t value)
{
	if (pwrite(dev->device_fd, &value, sizeof(value), dev->bars[BAR].offset + at) !=
	    sizeof(value))
		err(1, "BAR");
}

int main(int argc, char *argv[])
{
	const uint64_t page = sysconf(_SC_PAGESIZE);
	/* The second one lies before the first, and is two pages long. */
	const struct barlease_range ranges[] = { { 8 * page, page },
						 { 3 * page, 2 * page } };
	const uint64_t in_bar[] = { 8 * page, 3 * page, 4 * page };
	struct barlease_device dev;
	struct barlease_map *map;
	int lease;

	if (argc != 2)
		errx(2, "usage: ranges ADDRESS");
	if (barlease_device_open(&dev, argv[1]))
		err(1, "%s", argv[1]);
	lease = barlease_export(dev.device_fd, BAR, ranges, 2, O_RDWR);
	if (lease < 0)
		err(1, "export");
	map = barlease_map(lease, NULL);
	if (!map)
		err(1, "map");
	if (barlease_map_length(map) != 3 * page)
		errx(1, "the lease has %zu bytes", barlease_map_length(map));

	for (uint32_t i = 0; i < 3; i++) {
		owner_writes(&dev, in_bar[i], 100 + i);
		if (barlease_read32(map, i * page) != 100 + i)
			errx(1, "page %" PRIu32 " of the lease is another", i);
		printf("page %" PRIu32 " of the lease is page %" PRIu64 " of the BAR\n",
		       i, in_bar[i] / page);
	}
	if (barlease_unmap(map))
		err(1, "unmap");
	close(lease);
	barlease_device_close(&dev);
	return 0;
}
