/* SPDX-License-Identifier: MIT */
/*
 * barlease_device.h - open a PCI device through VFIO, for programs that have
 * no VFIO device fd yet.
 *
 * Functions return 0, or -1 with errno set. Resets and command say EBADF where
 * device_fd is no fd, ENOTTY where it is no VFIO device's. Threads: any, but one at a
 * time for one struct barlease_device, and for what a device is bound to; and none in a
 * signal handler. A device_fd is for all threads at once, also while one of them resets
 * the device.
 */
#ifndef BARLEASE_DEVICE_H
#define BARLEASE_DEVICE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BARLEASE_DRIVER "barlease-vfio-pci"
#define BARLEASE_BARS   6

/* What kind of BAR it is. */
#define BARLEASE_BAR_IO           (1u << 0) /* of I/O ports: can't be leased */
#define BARLEASE_BAR_MEMORY       (1u << 1)
#define BARLEASE_BAR_64BIT        (1u << 2) /* takes the next one's place, too */
#define BARLEASE_BAR_PREFETCHABLE (1u << 3)

struct barlease_bar {
	uint64_t size;   /* bytes; 0: not implemented */
	uint64_t offset; /* of the region in the device fd */
	uint32_t flags; /* VFIO_REGION_INFO_FLAG_*; one without _MMAP can't be leased */
	uint32_t kind;  /* BARLEASE_BAR_*; 0: not implemented */
};

/* Where the MSI-X table and its pending bits are: their pages can't be leased. */
struct barlease_msix {
	uint32_t nr_vectors; /* 0: it has no MSI-X */
	uint32_t table_bar;
	uint32_t table_offset;
	uint32_t pba_bar;
	uint32_t pba_offset;
	uint32_t reserved;
};

struct barlease_device {
	int container_fd; /* by group, else -1 */
	int group_fd;     /* by group, else -1 */
	int iommu_fd;     /* by cdev, else -1 */
	int device_fd;
	int group;        /* number of the IOMMU group */
	uint32_t ioas_id; /* by cdev: its I/O address space */
	char bdf[16];     /* "0000:01:00.0" */
	struct barlease_bar bars[BARLEASE_BARS];
	struct barlease_msix msix;
	uint64_t reserved[16]; /* for what comes later: the struct does not grow */
};

/*
 * Bind a device to the driver by driver_override (as root), or, with driver
 * NULL, take the override back and let the kernel probe anew. ENODEV: no such
 * device, or the driver is not loaded or does not want it. EINVAL: bdf is no
 * address, or driver is no name. EACCES: the caller is not root. ERANGE: the name of
 * what it is bound to is longer than is known of, so that it could not be given back.
 * On an error the device has what it had, if that takes it back. Threads: one for a
 * device; so too for barlease_device_unbind().
 */
int barlease_device_bind(const char *bdf, const char *driver);

/* What a device is bound to. */
struct barlease_binding {
	uint32_t size; /* set by the caller: sizeof(struct barlease_binding), 136 up */
	uint32_t reserved;
	char driver[64];   /* "": none */
	char override[64]; /* driver_override; "": none */
};

/*
 * Read that, before barlease_device_bind(). EINVAL: bdf is no address, or the size
 * is none, or below 136, which would cut names off; ENODEV: no such device; ERANGE: a
 * name is longer than is known of. Threads: while another one binds it, what is read
 * may be half of each.
 */
int barlease_device_get_binding(const char *bdf, struct barlease_binding *binding);

/*
 * Take a device from its driver and restore what was there (as root): the
 * override, and the driver, or none, be it one that was told to take the device by an
 * override which is gone. EINVAL: as above, or a name is none; ENODEV: no such device
 * or driver, or that does not want it; EACCES, ERANGE: as for bind. On an error as
 * above.
 */
int barlease_device_unbind(const char *bdf, const struct barlease_binding *binding);

/*
 * Open a device by its address, and read its BARs: by its cdev with an iommufd
 * where the kernel has that and the caller may use it, else by its group and a
 * container with the type 1 IOMMU. EACCES, the most usual: the caller may open
 * neither; EINVAL: bdf is no address; ENODEV: no such device, or in no IOMMU group;
 * ENOENT: it has no VFIO driver, or ENODEV where another device of its group has one;
 * EPERM (by cdev EBUSY): its group is not viable, as another device of it has a driver
 * of its own; EBUSY: it is open elsewhere; EIO: config space could not be read; else
 * what open(), fcntl() or ioctl() said.
 */
int barlease_device_open(struct barlease_device *dev, const char *bdf);

/*
 * The same by one of the two ways. ENOENT: the kernel does not have it; EACCES: the
 * caller may not use it; EINVAL: path is none of these. By cdev no VFIO driver is
 * ENOENT always, and EINVAL may also be either of: it is open by cdev elsewhere; its
 * DMA is not coherent with the CPU's caches, which iommufd demands.
 */
#define BARLEASE_PATH_ANY   0u
#define BARLEASE_PATH_CDEV  1u
#define BARLEASE_PATH_GROUP 2u

int barlease_device_open_path(struct barlease_device *dev, const char *bdf,
			      uint32_t path);

/*
 * Open one more device in the way, and with the container or I/O address space,
 * of one that is open. Devices that are reset together must be opened so. Errors: as
 * barlease_device_open_path() has them by that way. Threads: several may do so beside
 * the same one, which is only read.
 */
int barlease_device_open_beside(struct barlease_device *dev, const char *bdf,
				const struct barlease_device *beside);

/*
 * Close it. Every lease of the device dies with its last open fd. Threads: when no
 * other uses the struct or one of its fds, or will.
 */
void barlease_device_close(struct barlease_device *dev);

/*
 * Reset it (VFIO_DEVICE_RESET). ENOTTY: the device has no reset method. Both
 * resets try again for up to 10 s while the kernel finds a lock taken, because
 * lessees fault; then errno is EBUSY or EAGAIN. Threads: one for a struct, while
 * lessees and other devices are at work.
 */
int barlease_device_reset(struct barlease_device *dev);

/*
 * Reset every device of its bus or slot (VFIO_DEVICE_PCI_HOT_RESET). EINVAL: one
 * of them is not the caller's: by group, it is in another IOMMU group than dev;
 * by cdev, neither it nor its group belongs to the same iommufd; ENODEV: neither bus
 * nor slot can be reset. Threads: as above, and others may reset those devices by
 * structs of their own.
 */
int barlease_device_hot_reset(struct barlease_device *dev);

/*
 * Set and clear bits (PCI_COMMAND_*) of the command register. EIO: config space could
 * not be read or written. Threads: one for a device, as it reads and then writes.
 */
int barlease_device_command(struct barlease_device *dev, uint16_t set, uint16_t clear);

#ifdef __cplusplus
}
#endif

#endif /* BARLEASE_DEVICE_H */
