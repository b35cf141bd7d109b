// SPDX-License-Identifier: MIT
/*
 * revoke.c - two leases of the same page, each of which can be taken back without
 * the other, and what the kernel tells of them.
 *
 * Usage: revoke ADDRESS
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_device.h"
#include "barlease_uapi.h"

#define BAR 2 /* QEMU's "ivshmem" has memory there */

static uint32_t state_of(const struct barlease_device *dev, int lease)
{
	struct barlease_info info = { .size = sizeof(info) };

	if (barlease_get_info(dev->device_fd, lease, &info))
		err(1, "info");
	printf("lease of %" PRIu64 " bytes is %s\n", info.length,
	       info.state == BARLEASE_STATE_LIVE ? "live" : "revoked");
	return info.state;
}

int main(int argc, char *argv[])
{
	struct barlease_range range = { 0, sysconf(_SC_PAGESIZE) };
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	struct barlease_map *maps[2];
	struct barlease_device dev;
	int leases[2];

	if (argc != 2)
		errx(2, "usage: revoke ADDRESS");
	if (barlease_device_open(&dev, argv[1]))
		err(1, "%s", argv[1]);
	for (int i = 0; i < 2; i++) {
		leases[i] = barlease_export(dev.device_fd, BAR, &range, 1, O_RDWR);
		if (leases[i] < 0 || !(maps[i] = barlease_map(leases[i], &options)))
			err(1, "lease");
	}
	barlease_write32(maps[0], 0, 42);

	if (barlease_revoke(dev.device_fd, leases[0]))
		err(1, "revoke");
	if (state_of(&dev, leases[0]) != BARLEASE_STATE_REVOKED ||
	    state_of(&dev, leases[1]) != BARLEASE_STATE_LIVE)
		errx(1, "another lease was revoked");
	if (barlease_read32(maps[0], 0) != UINT32_MAX || !barlease_map_lost(maps[0]))
		errx(1, "the revoked lease can still be read");
	if (barlease_read32(maps[1], 0) != 42 || barlease_map_lost(maps[1]))
		errx(1, "the other lease can't be read");
	printf("the first map is lost, the second one reads on\n");
	if (barlease_map(leases[0], NULL) || errno != ENODEV)
		errx(1, "the revoked lease can be mapped");
	printf("map the first lease again: ENODEV\n");

	for (int i = 0; i < 2; i++)
		if (barlease_unmap(maps[i]) || close(leases[i]))
			err(1, "unmap");
	barlease_device_close(&dev);
	return 0;
}
