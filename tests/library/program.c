// SPDX-License-Identifier: MIT
/*
 * program.c - a program of somebody else's, for ./install to build against what
 * was installed: it loses a map, and says what it saw.
 */
#define _GNU_SOURCE
#include <barlease.h>
#include <barlease_device.h>
#include <barlease_mmio.h>
#include <barlease_uapi.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void)
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	struct barlease_device dev;
	struct barlease_map *map;
	int fd = memfd_create("lease", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, 4096))
		return 1;
	map = barlease_map(fd, &options);
	if (!map)
		return 2;
	barlease_write32(map, 8, 0x1234);
	printf("live: %#" PRIx32 ", lost %d\n",
	       barlease_mmio_read32((char *)barlease_map_addr(map) + 8),
	       barlease_map_lost(map));
	fflush(stdout);
	if (ftruncate(fd, 0))
		return 3;
	printf("gone: %#" PRIx32, barlease_read32(map, 8));
	printf(", lost %d\n", barlease_map_lost(map));
	fflush(stdout);
	if (barlease_unmap(map) || barlease_device_open(&dev, "nowhere") != -1)
		return 4;
	printf("nowhere: %d\n", errno == EINVAL);
	return 0;
}
