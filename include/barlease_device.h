/* SPDX-License-Identifier: MIT */
/*
 * barlease_device.h - open a PCI device through VFIO, for programs that have
 * no VFIO device fd yet.
 *
 * Functions return 0, or -1 with errno set. One struct barlease_device must not
 * be used by two threads at once; its device_fd may be.
 */
#ifndef BARLEASE_DEVICE_H
#define BARLEASE_DEVICE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BARLEASE_DRIVER "barlease-vfio-pci"
#define BARLEASE_BARS   6

struct barlease_bar {
	uint64_t size;   /* bytes; 0: not implemented */
	uint64_t offset; /* of the region in the device fd */
	uint32_t flags;  /* VFIO_REGION_INFO_FLAG_* */
};

struct barlease_device {
	int container_fd;
	int group_fd;
	int device_fd;
	int group;    /* number of the IOMMU group */
	char bdf[16]; /* "0000:01:00.0" */
	struct barlease_bar bars[BARLEASE_BARS];
};

/*
 * Bind a device to the driver by driver_override (as root), or, with driver
 * NULL, take the override back and let the kernel probe anew. ENODEV: no such
 * device, or the driver is not loaded or does not want it.
 */
int barlease_device_bind(const char *bdf, const char *driver);

/*
 * Open a device by its address: its group in a container of its own with the
 * type 1 IOMMU, and its BARs read. EINVAL: bdf is no address; ENODEV: no such
 * device, or in no IOMMU group; ENOENT: it has no VFIO driver; EPERM: its group
 * is not viable, as another device of it has a driver of its own; EBUSY: its
 * group is open elsewhere.
 */
int barlease_device_open(struct barlease_device *dev, const char *bdf);

/* Close it. Every lease of the device dies with its last open fd. */
void barlease_device_close(struct barlease_device *dev);

/*
 * Reset it (VFIO_DEVICE_RESET). ENOTTY: the device has no reset method. Both
 * resets try again for up to 10 s while the kernel finds a lock taken, because
 * lessees fault; then errno is EBUSY or EAGAIN.
 */
int barlease_device_reset(struct barlease_device *dev);

/*
 * Reset every device of its bus or slot (VFIO_DEVICE_PCI_HOT_RESET). All of
 * them must be in the same IOMMU group.
 */
int barlease_device_hot_reset(struct barlease_device *dev);

/* Set and clear bits (PCI_COMMAND_*) of the command register. EIO: it failed. */
int barlease_device_command(struct barlease_device *dev, uint16_t set, uint16_t clear);

#ifdef __cplusplus
}
#endif

#endif /* BARLEASE_DEVICE_H */
