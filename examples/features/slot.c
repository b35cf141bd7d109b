// SPDX-License-Identifier: MIT
/*
 * slot.c - two functions of one slot, which can only be reset together.
 *
 * Usage: slot ADDRESS ADDRESS
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

#define IDENTIFICATION 0 /* of QEMU's "edu", BAR 0 */

int main(int argc, char *argv[])
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	struct barlease_range range = { 0, (uint64_t)sysconf(_SC_PAGESIZE) };
	struct barlease_device first, second;
	struct barlease_map *map;
	uint32_t mask, word;
	int lease;

	if (argc != 3)
		errx(2, "usage: slot ADDRESS ADDRESS");
	if (barlease_device_open(&first, argv[1]))
		err(1, "%s", argv[1]);
	if (barlease_device_open_beside(&second, argv[2], &first))
		err(1, "%s", argv[2]);
	if (barlease_features(second.device_fd, &mask))
		err(1, "features");
	printf("its driver can export%s\n",
	       mask & BARLEASE_CAN_REVOKE ? " and revoke" : "");
	lease = barlease_export(second.device_fd, 0, &range, 1, O_RDWR);
	if (lease < 0 || !(map = barlease_map(lease, &options)))
		err(1, "lease");
	word = barlease_read32(map, IDENTIFICATION);

	if (barlease_device_reset(&first) == 0 || errno != ENOTTY)
		errx(1, "it can be reset alone");
	printf("reset of one: ENOTTY\n");
	if (barlease_device_hot_reset(&first))
		err(1, "hot reset");
	if (barlease_read32(map, IDENTIFICATION) != word || barlease_map_lost(map))
		errx(1, "a reset took the lease");
	printf("hot reset of both: the lease of the other one lives on\n");

	barlease_unmap(map);
	close(lease);
	barlease_device_close(&second);
	barlease_device_close(&first);
	return 0;
}
