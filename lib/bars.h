/* SPDX-License-Identifier: MIT */
/* bars.h - what VFIO and config space say of a device's BARs. */
#ifndef BARLEASE_BARS_H
#define BARLEASE_BARS_H

#include <linux/vfio.h>

#include "barlease_device.h"

int barlease_region_info(int device_fd, uint32_t index, struct vfio_region_info *info);

/* Fill in the BARs of an open device and where its MSI-X table is. */
int barlease_read_bars(struct barlease_device *dev);

#endif /* BARLEASE_BARS_H */
