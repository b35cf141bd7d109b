// SPDX-License-Identifier: MIT
/*
 * device.c - take a device from its driver, open it, see what it has, reset it, and
 * give it back to whom it was.
 *
 * Usage: device ADDRESS
 */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "barlease_device.h"

static const char *name_of(const struct barlease_binding *binding)
{
	return binding->driver[0] ? binding->driver : "no driver";
}

int main(int argc, char *argv[])
{
	struct barlease_binding before = { .size = sizeof(before) },
				now = { .size = sizeof(now) };
	struct barlease_device dev;

	if (argc != 2)
		errx(2, "usage: device ADDRESS");
	if (barlease_device_get_binding(argv[1], &before))
		err(1, "%s", argv[1]);
	printf("%s has %s\n", argv[1], name_of(&before));
	if (barlease_device_bind(argv[1], BARLEASE_DRIVER))
		err(1, "bind");
	if (barlease_device_open(&dev, argv[1]))
		err(1, "open");
	printf("opened %s of group %d by its %s\n", dev.bdf, dev.group,
	       dev.iommu_fd >= 0 ? "cdev" : "group");

	for (int i = 0; i < BARLEASE_BARS; i++) {
		const struct barlease_bar *bar = &dev.bars[i];

		if (bar->size)
			printf("BAR %d: %" PRIu64 " bytes of %s\n", i, bar->size,
			       bar->kind & BARLEASE_BAR_IO ? "ports" : "memory");
	}
	printf("MSI-X: %" PRIu32 " vectors\n", dev.msix.nr_vectors);

	if (barlease_device_reset(&dev))
		err(1, "reset");
	printf("reset\n");

	barlease_device_close(&dev);
	if (barlease_device_unbind(argv[1], &before) ||
	    barlease_device_get_binding(argv[1], &now))
		err(1, "unbind");
	if (strcmp(now.driver, before.driver) || strcmp(now.override, before.override))
		errx(1, "it was not given back");
	printf("gave it back to %s\n", name_of(&now));
	return 0;
}
