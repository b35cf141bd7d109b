// SPDX-License-Identifier: MIT
/*
 * survive.c - a map is lost as the device does not answer for a while, the program
 * goes on, and maps the lease again when it does.
 *
 * Usage: survive ADDRESS
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_device.h"

#define BAR 2 /* QEMU's "ivshmem" has memory there */

int main(int argc, char *argv[])
{
	struct barlease_range range = { 0, sysconf(_SC_PAGESIZE) };
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	struct barlease_device dev;
	struct barlease_map *map;
	int lease;

	if (argc != 2)
		errx(2, "usage: survive ADDRESS");
	if (barlease_device_open(&dev, argv[1]))
		err(1, "%s", argv[1]);
	lease = barlease_export(dev.device_fd, BAR, &range, 1, O_RDWR);
	if (lease < 0)
		err(1, "export");
	map = barlease_map(lease, &options);
	if (!map)
		err(1, "map");
	barlease_write32(map, 0, 42);

	/* The owner switches off what answers memory accesses. */
	if (barlease_device_command(&dev, 0, PCI_COMMAND_MEMORY))
		err(1, "command");
	if (barlease_read32(map, 0) != UINT32_MAX || !barlease_map_lost(map))
		errx(1, "the map is not lost");
	barlease_write32(map, 0, 43);
	printf("lost: reads as ones, and stores are dropped\n");
	if (!barlease_map_restore(map) || errno != EIO)
		errx(1, "it can be restored too early");
	printf("restore: EIO, try again later\n");

	if (barlease_device_command(&dev, PCI_COMMAND_MEMORY, 0))
		err(1, "command");
	if (barlease_map_restore(map))
		err(1, "restore");
	if (barlease_read32(map, 0) != 42 || barlease_map_lost(map))
		errx(1, "it is not as it was");
	printf("restored: reads what was there\n");

	if (barlease_unmap(map))
		err(1, "unmap");
	close(lease);
	barlease_device_close(&dev);
	return 0;
}
