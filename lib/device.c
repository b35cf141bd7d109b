// SPDX-License-Identifier: MIT
/*
 * device.c - a PCI device under VFIO: open it by its cdev and an iommufd or by
 * its group and a container, reset it, write its command register.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "barlease_device.h"
#include "bars.h"
#include "iommufd.h"
#include "sysfs.h"

#define RESET_PATIENCE_S   10
#define RESET_PAUSE_MS     4
#define RESET_PAUSE_MAX_MS 512
#define NS_PER_MS          1000000L

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* fd is -1, or of the device that is opened beside: this one's own copy of it. */
static int copy_or_open(int fd, const char *path)
{
	if (fd >= 0)
		return fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return open(path, O_RDWR | O_CLOEXEC);
}

static int open_group(struct barlease_device *dev, const struct barlease_device *beside)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	bool same = beside && beside->group == dev->group;
	char path[64];

	snprintf(path, sizeof(path), "/dev/vfio/%d", dev->group);
	dev->group_fd = copy_or_open(same ? beside->group_fd : -1, path);
	if (dev->group_fd < 0)
		return -1;
	dev->container_fd =
		copy_or_open(beside ? beside->container_fd : -1, "/dev/vfio/vfio");
	if (dev->container_fd < 0)
		return -1;
	if (same)
		return 0;

	if (ioctl(dev->group_fd, VFIO_GROUP_GET_STATUS, &status) < 0)
		return -1;
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
		errno = EPERM;
		return -1;
	}
	if (ioctl(dev->group_fd, VFIO_GROUP_SET_CONTAINER, &dev->container_fd) < 0)
		return -1;
	if (beside)
		return 0;
	return ioctl(dev->container_fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU);
}

static int open_by_group(struct barlease_device *dev,
			 const struct barlease_device *beside)
{
	if (open_group(dev, beside) < 0)
		return -1;
	dev->device_fd = ioctl(dev->group_fd, VFIO_GROUP_GET_DEVICE_FD, dev->bdf);
	return dev->device_fd < 0 ? -1 : 0;
}

/* The node of the device's cdev, which need not be there; -1: no VFIO device. */
static int cdev_path(const char *bdf, char path[PATH_MAX])
{
	struct dirent *entry;
	DIR *dir;

	snprintf(path, PATH_MAX, PCI_SYSFS "/devices/%s/vfio-dev", bdf);
	dir = opendir(path);
	if (!dir)
		return -1;
	do {
		errno = ENOENT;
		entry = readdir(dir);
	} while (entry && strncmp(entry->d_name, "vfio", 4) != 0);
	if (entry)
		snprintf(path, PATH_MAX, "/dev/vfio/devices/%s", entry->d_name);
	closedir(dir);
	return entry ? 0 : -1;
}

static int open_cdev(struct barlease_device *dev, const struct barlease_device *beside)
{
	char path[PATH_MAX];

	if (cdev_path(dev->bdf, path))
		return -1;
	dev->device_fd = open(path, O_RDWR | O_CLOEXEC);
	if (dev->device_fd < 0)
		return -1;
	dev->iommu_fd = copy_or_open(beside ? beside->iommu_fd : -1, "/dev/iommu");
	return dev->iommu_fd < 0 ? -1 : 0;
}

/*
 * The bond with the iommufd makes us the owner of the device's DMA, the I/O
 * address space gives that somewhere to go; nothing is mapped there yet.
 */
static int bind_iommufd(struct barlease_device *dev,
			const struct barlease_device *beside)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind),
						 .iommufd = dev->iommu_fd };
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };
	struct ioas_alloc alloc = { .size = sizeof(alloc) };

	if (ioctl(dev->device_fd, VFIO_DEVICE_BIND_IOMMUFD, &bind) < 0)
		return -1;
	if (beside) {
		dev->ioas_id = beside->ioas_id;
	} else {
		if (ioctl(dev->iommu_fd, IOAS_ALLOC, &alloc) < 0)
			return -1;
		dev->ioas_id = alloc.out_ioas_id;
	}
	attach.pt_id = dev->ioas_id;
	return ioctl(dev->device_fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);
}

static int open_by_cdev(struct barlease_device *dev,
			const struct barlease_device *beside)
{
	if (open_cdev(dev, beside))
		return -1;
	return bind_iommufd(dev, beside);
}

/*
 * By cdev where the kernel has it and we may use it, else by group. EINVAL is how
 * the kernel says that the cdev is open already, or that iommufd does not take
 * the device because its DMA is not coherent: in the former case the group is
 * EBUSY, in the latter it will do.
 */
static int open_by_any(struct barlease_device *dev)
{
	int by_cdev;

	if (open_by_cdev(dev, NULL) == 0)
		return 0;
	by_cdev = errno;
	switch (by_cdev) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
	case EACCES:
	case EPERM:
	case EINVAL:
		close_fd(&dev->device_fd);
		close_fd(&dev->iommu_fd);
		if (open_by_group(dev, NULL) == 0)
			return 0;
		/* The kernel may have no groups: the cdev's word is the one to hear. */
		if (errno == ENOENT && by_cdev != ENODEV && by_cdev != ENXIO)
			errno = by_cdev;
		return -1;
	default:
		return -1;
	}
}

static int open_device(struct barlease_device *dev, const char *bdf, uint32_t path,
		       const struct barlease_device *beside)
{
	char target[PATH_MAX];
	const char *group;
	int ret, saved;

	*dev = (struct barlease_device){
		.container_fd = -1,
		.group_fd = -1,
		.iommu_fd = -1,
		.device_fd = -1,
	};
	if (barlease_parse_bdf(bdf, dev->bdf))
		return -1;
	group = barlease_link_name(dev->bdf, "iommu_group", target);
	if (!group) {
		errno = ENODEV;
		return -1;
	}
	dev->group = atoi(group);

	switch (path) {
	case BARLEASE_PATH_ANY:
		ret = open_by_any(dev);
		break;
	case BARLEASE_PATH_CDEV:
		ret = open_by_cdev(dev, beside);
		break;
	case BARLEASE_PATH_GROUP:
		ret = open_by_group(dev, beside);
		break;
	default:
		errno = EINVAL;
		ret = -1;
	}
	if (ret == 0 && barlease_read_bars(dev) == 0)
		return 0;

	saved = errno;
	barlease_device_close(dev);
	errno = saved;
	return -1;
}

int barlease_device_open(struct barlease_device *dev, const char *bdf)
{
	return open_device(dev, bdf, BARLEASE_PATH_ANY, NULL);
}

int barlease_device_open_path(struct barlease_device *dev, const char *bdf,
			      uint32_t path)
{
	return open_device(dev, bdf, path, NULL);
}

int barlease_device_open_beside(struct barlease_device *dev, const char *bdf,
				const struct barlease_device *beside)
{
	return open_device(dev, bdf,
			   beside->iommu_fd >= 0 ? BARLEASE_PATH_CDEV :
						   BARLEASE_PATH_GROUP,
			   beside);
}

/* The device before what its DMA depends on. */
void barlease_device_close(struct barlease_device *dev)
{
	close_fd(&dev->device_fd);
	close_fd(&dev->group_fd);
	close_fd(&dev->container_fd);
	close_fd(&dev->iommu_fd);
}

/*
 * The kernel takes the locks of a reset by trylock, and fails when somebody
 * holds one just then: nothing tells when they are free, so ask again. Each
 * attempt at several devices may take the pages of some away before it fails at
 * another, so that their lessees fault and hold locks at the next: leave them
 * ever more time for that, and not the same as another thread that tries.
 */
static int reset_ioctl(int device_fd, unsigned long request, void *arg)
{
	struct timespec now, end, pause = { 0 };
	long pause_ms = RESET_PAUSE_MS;
	int ret;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += RESET_PATIENCE_S;
	while ((ret = ioctl(device_fd, request, arg)) &&
	       (errno == EBUSY || errno == EAGAIN)) {
		int error = errno;

		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec >= end.tv_sec) {
			errno = error;
			break;
		}
		pause.tv_nsec =
			(pause_ms / 2 + now.tv_nsec % (pause_ms / 2 + 1)) * NS_PER_MS;
		nanosleep(&pause, NULL);
		if (pause_ms < RESET_PAUSE_MAX_MS)
			pause_ms *= 2;
	}
	return ret;
}

int barlease_device_reset(struct barlease_device *dev)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };

	if (ioctl(dev->device_fd, VFIO_DEVICE_GET_INFO, &info) < 0)
		return -1;
	if (!(info.flags & VFIO_DEVICE_FLAGS_RESET)) {
		errno = ENOTTY;
		return -1;
	}
	return reset_ioctl(dev->device_fd, VFIO_DEVICE_RESET, NULL);
}

int barlease_device_hot_reset(struct barlease_device *dev)
{
	union {
		struct vfio_pci_hot_reset head;
		char bytes[sizeof(struct vfio_pci_hot_reset) + sizeof(int)];
	} arg = { .head = { .argsz = sizeof(arg), .count = 1 } };

	/* By cdev the kernel asks the iommufd who owns what is reset. */
	if (dev->iommu_fd >= 0)
		arg.head.count = 0;
	memcpy(arg.head.group_fds, &dev->group_fd, sizeof(int));
	return reset_ioctl(dev->device_fd, VFIO_DEVICE_PCI_HOT_RESET, &arg);
}

int barlease_device_command(struct barlease_device *dev, uint16_t set, uint16_t clear)
{
	struct vfio_region_info config;
	uint16_t command;

	if (barlease_region_info(dev->device_fd, VFIO_PCI_CONFIG_REGION_INDEX,
				 &config) < 0)
		return -1;
	if (pread(dev->device_fd, &command, sizeof(command),
		  config.offset + PCI_COMMAND) != sizeof(command))
		goto fail;
	command = htole16((le16toh(command) & ~clear) | set);
	if (pwrite(dev->device_fd, &command, sizeof(command),
		   config.offset + PCI_COMMAND) != sizeof(command))
		goto fail;
	return 0;

fail:
	errno = EIO;
	return -1;
}
