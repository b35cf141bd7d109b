// SPDX-License-Identifier: MIT
/*
 * open.c - how the library opens a device when it is not told which way.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"

#define IOMMUFD "/dev/iommu"

TEST(open_ebusy,
     "a device that is open elsewhere is EBUSY, and is not once it is closed")
{
	struct barlease_device dev = open_device(RAM_DEVICE), other;

	CHECK_ERRNO(barlease_device_open(&other, dev.bdf), EBUSY);
	barlease_device_close(&dev);
	CHECK_OK(barlease_device_open(&other, dev.bdf));
	barlease_device_close(&other);
}

TEST(open_no_driver,
     "a device without a driver is ENOENT, or ENODEV where one of its group has VFIO's")
{
	const struct barlease_binding none = { .size = sizeof(none) };
	struct barlease_device dev;
	char bdf[sizeof(dev.bdf)];

	snprintf(bdf, sizeof(bdf), "%s", device_bdf(EDU_SIBLING));
	CHECK_OK(barlease_device_unbind(bdf, &none));
	CHECK_ERRNO(barlease_device_open(&dev, bdf), ENODEV);
	CHECK_ERRNO(barlease_device_open_path(&dev, bdf, BARLEASE_PATH_GROUP), ENODEV);
	CHECK_ERRNO(barlease_device_open_path(&dev, bdf, BARLEASE_PATH_CDEV), ENOENT);
	CHECK_OK(barlease_device_unbind(device_bdf(EDU_DEVICE), &none));
	CHECK_ERRNO(barlease_device_open(&dev, bdf), ENOENT);
	CHECK_ERRNO(barlease_device_open_path(&dev, bdf, BARLEASE_PATH_GROUP), ENOENT);
	CHECK_ERRNO(barlease_device_open_path(&dev, bdf, BARLEASE_PATH_CDEV), ENOENT);
	bind_devices();
}

TEST(open_prefers_cdev,
     "a device is opened by its cdev where it has one, else by group")
{
	bool has_cdevs = access("/dev/vfio/devices", F_OK) == 0;
	struct barlease_device dev;

	CHECK_OK(barlease_device_open(&dev, device_bdf(RAM_DEVICE)));
	CHECK_EQ(dev.iommu_fd >= 0, has_cdevs);
	CHECK_EQ(dev.group_fd >= 0, !has_cdevs);
	barlease_device_close(&dev);
}

/* In a mount namespace of the test's own, which ends with it. */
TEST(open_falls_back, "a device is opened by group where /dev/iommu is but a name")
{
	/* No driver has these numbers: they are for local use. */
	const struct {
		dev_t dev;
		int error;
	} nobody[] = {
		{ makedev(60, 0), ENXIO },
		{ makedev(10, 243), ENODEV },
	};
	const char *node = "/dev/nobody";
	bool has_iommufd = access(IOMMUFD, F_OK) == 0;
	struct barlease_device dev;

	CHECK_OK(unshare(CLONE_NEWNS));
	CHECK_OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	for (size_t i = 0; i < sizeof(nobody) / sizeof(*nobody); i++) {
		CHECK_OK(mknod(node, S_IFCHR | 0600, nobody[i].dev));
		CHECK_ERRNO(open(node, O_RDWR), nobody[i].error);
		/* Without one the kernel has no cdev either. */
		if (has_iommufd)
			CHECK_OK(mount(node, IOMMUFD, NULL, MS_BIND, NULL));
		CHECK_OK(barlease_device_open(&dev, device_bdf(RAM_DEVICE)));
		CHECK(dev.group_fd >= 0 && dev.iommu_fd < 0);
		barlease_device_close(&dev);
		if (has_iommufd)
			CHECK_OK(umount(IOMMUFD));
		CHECK_OK(unlink(node));
	}
}

/* Such a kernel's /dev/vfio, in a mount namespace of the test's own. */
TEST(open_eacces_no_groups,
     "who may not open the cdev is told so where the kernel has no groups")
{
	static const char dir[] = "/mnt", devices[] = "/mnt/devices";
	bool has_cdevs = access("/dev/vfio/devices", F_OK) == 0;
	struct barlease_device dev;
	char bdf[sizeof(dev.bdf)];

	snprintf(bdf, sizeof(bdf), "%s", device_bdf(RAM_DEVICE));
	CHECK_OK(unshare(CLONE_NEWNS));
	CHECK_OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	CHECK_OK(mount("tmpfs", dir, "tmpfs", 0, "mode=755"));
	if (has_cdevs) {
		CHECK_OK(mkdir(devices, 0755));
		CHECK_OK(mount("/dev/vfio/devices", devices, NULL, MS_BIND, NULL));
	}
	CHECK_OK(mount(dir, "/dev/vfio", NULL, MS_BIND | MS_REC, NULL));
	CHECK_OK(setresuid(65534, 65534, 65534));
	CHECK_ERRNO(barlease_device_open(&dev, bdf), has_cdevs ? EACCES : ENOENT);
}
