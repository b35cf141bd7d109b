// SPDX-License-Identifier: MIT
/*
 * prefault.c - a map whose pages are all there from the beginning, in few entries
 * of the page tables, so that no access waits for the kernel.
 *
 * Usage: prefault ADDRESS
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

static uint64_t faults_of(const struct barlease_device *dev, int lease)
{
	struct barlease_info info = { .size = sizeof(info) };

	if (barlease_get_info(dev->device_fd, lease, &info))
		err(1, "info");
	return info.faults;
}

int main(int argc, char *argv[])
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_PREFAULT };
	struct barlease_info info = { .size = sizeof(info) };
	const uint64_t page = sysconf(_SC_PAGESIZE);
	struct barlease_range range = { 0, 0 };
	struct barlease_device dev;
	struct barlease_map *map;
	uint64_t faults;
	int lease;

	if (argc != 2)
		errx(2, "usage: prefault ADDRESS");
	if (barlease_device_open(&dev, argv[1]))
		err(1, "%s", argv[1]);
	range.length = dev.bars[BAR].size;
	lease = barlease_export(dev.device_fd, BAR, &range, 1, O_RDWR);
	if (lease < 0 || barlease_get_info(dev.device_fd, lease, &info))
		err(1, "lease");

	/* Where huge pages fit. A lessee gets it with barlease_recv(). */
	options.va_hint = info.va_hint;
	map = barlease_map(lease, &options);
	if (!map)
		err(1, "map");
	faults = faults_of(&dev, lease);
	printf("mapped %" PRIu64 " pages by %" PRIu64 " faults\n", range.length / page,
	       faults - info.faults);

	for (uint64_t at = 0; at < range.length; at += page)
		barlease_read32(map, at);
	if (faults_of(&dev, lease) != faults)
		errx(1, "there were more faults");
	printf("read all of them without another one\n");

	if (barlease_unmap(map))
		err(1, "unmap");
	close(lease);
	barlease_device_close(&dev);
	return 0;
}
