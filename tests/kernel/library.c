// SPDX-License-Identifier: MIT
/*
 * library.c - what the library does beyond the kernel's calls: features, what a
 * device is bound to and made of, and maps that survive.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "barlease.h"
#include "device.h"
#include "harness.h"
#include "system.h"

TEST(library_features, "the library tells which calls a device takes")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	uint32_t mask;

	CHECK_OK(barlease_features(dev.device_fd, &mask));
	CHECK_EQ(mask, BARLEASE_CAN_EXPORT | BARLEASE_CAN_REVOKE |
			       BARLEASE_CAN_SET_MEMATTR | BARLEASE_CAN_GET_INFO);
}

TEST(library_export, "what the library exports is closed by an exec")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct barlease_range range = { 0, PAGE_SIZE };
	int fd = (int)CHECK_OK(
		barlease_export(dev.device_fd, RAM_BAR, &range, 1, O_RDWR));

	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

static bool kernel_is_from(int major, int minor)
{
	struct utsname name;
	int has_major, has_minor;

	CHECK_OK(uname(&name));
	CHECK_EQ(sscanf(name.release, "%d.%d", &has_major, &has_minor), 2);
	return has_major != major ? has_major > major : has_minor >= minor;
}

TEST(library_vfio_pci, "on a device of vfio-pci the library's own calls are ENOTTY")
{
	const char *bdf = device_bdf(BLK_DEVICE);
	struct barlease_info info = { .size = sizeof(info) };
	struct barlease_device dev;
	uint32_t mask;

	CHECK_OK(system("modprobe vfio-pci"));
	CHECK_OK(barlease_device_bind(bdf, "vfio-pci"));
	dev = open_address(bdf);
	CHECK_OK(barlease_features(dev.device_fd, &mask));
	CHECK_ERRNO(barlease_revoke(dev.device_fd, 0), ENOTTY);
	CHECK_ERRNO(barlease_get_info(dev.device_fd, 0, &info), ENOTTY);
	CHECK_ERRNO(barlease_set_memattr(dev.device_fd, 0, 0), ENOTTY);
	/* From 6.19 on it exports; which kernel can map that is not known yet. */
	if (kernel_is_from(6, 19)) {
		struct barlease_range range = { 0, PAGE_SIZE };
		int fd = (int)CHECK_OK(
			barlease_export(dev.device_fd, 4, &range, 1, O_RDWR));

		CHECK_EQ(mask, BARLEASE_CAN_EXPORT);
		if (!kernel_is_from(7, 4))
			CHECK_ERRNO(barlease_map(fd, NULL) ? 0 : -1, EOPNOTSUPP);
		close(fd);
	} else {
		CHECK_EQ(mask, 0);
	}
	barlease_device_close(&dev);
	CHECK_OK(barlease_device_bind(bdf, BARLEASE_DRIVER));
}

TEST(library_bars, "a device's BARs are told by size, kind and MSI-X table")
{
	struct barlease_device ram = open_device(RAM_DEVICE);
	struct barlease_device nvme = open_device(NVME_DEVICE);

	CHECK_EQ(ram.bars[RAM_BAR].size, RAM_SIZE);
	CHECK_EQ(ram.bars[RAM_BAR].kind,
		 BARLEASE_BAR_MEMORY | BARLEASE_BAR_64BIT | BARLEASE_BAR_PREFETCHABLE);
	CHECK_EQ(ram.bars[RAM_BAR + 1].kind, 0);
	CHECK_EQ(ram.bars[0].kind, BARLEASE_BAR_MEMORY);
	CHECK_EQ(nvme.bars[0].kind, BARLEASE_BAR_MEMORY | BARLEASE_BAR_64BIT);
	CHECK(nvme.msix.nr_vectors > 0);
	CHECK_EQ(nvme.msix.table_bar, 0);
	CHECK_EQ(nvme.msix.table_offset, 0x2000);
	CHECK_EQ(nvme.msix.pba_bar, 0);
}

TEST(library_unbind, "unbinding restores the driver and the override that were there")
{
	/* VFIO's wants to be told; once it was, the override may be taken back. */
	static const struct {
		const char *driver;
		bool taken_back;
	} had[] = { { "virtio-pci", false },
		    { "", false },
		    { "vfio-pci", true },
		    { BARLEASE_DRIVER, false } }; /* as others have it */
	const char *bdf = device_bdf(BLK_DEVICE);
	char path[128];
	struct barlease_binding now = { .size = sizeof(now) };
	const struct barlease_binding none = { .size = sizeof(none) };

	CHECK_OK(system("modprobe -a virtio-pci vfio-pci"));
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver_override", bdf);
	for (size_t i = 0; i < sizeof(had) / sizeof(*had); i++) {
		struct barlease_binding was = { .size = sizeof(was) };

		if (*had[i].driver)
			CHECK_OK(barlease_device_bind(bdf, had[i].driver));
		else
			CHECK_OK(barlease_device_unbind(bdf, &none));
		if (had[i].taken_back)
			write_file(path, "\n");
		CHECK_OK(barlease_device_get_binding(bdf, &was));
		CHECK(!strcmp(was.driver, had[i].driver));
		CHECK(!strcmp(was.override, had[i].taken_back ? "" : had[i].driver));
		CHECK_OK(barlease_device_bind(bdf, BARLEASE_DRIVER));
		CHECK_OK(barlease_device_unbind(bdf, &was));
		CHECK_OK(barlease_device_get_binding(bdf, &now));
		CHECK(!memcmp(&was, &now, sizeof(now)));
	}
}

static void check_binding(const char *bdf, const struct barlease_binding *was)
{
	struct barlease_binding now = { .size = sizeof(now) };

	CHECK_OK(barlease_device_get_binding(bdf, &now));
	CHECK(!strcmp(now.driver, was->driver));
	CHECK(!strcmp(now.override, was->override));
}

TEST(library_bind_refused, "a driver that refuses a device leaves it what it had")
{
	const char *bdf = device_bdf(EDU_DEVICE);
	const struct barlease_binding none = { .size = sizeof(none) };
	/* It does not want what is not virtio, nor is there the other one. */
	static const char *const drivers[] = { "virtio-pci", "no-such-driver" };

	CHECK_OK(system("modprobe virtio-pci"));
	for (int bound = 0; bound < 2; bound++) {
		struct barlease_binding was = { .size = sizeof(was) };

		if (bound)
			CHECK_OK(barlease_device_bind(bdf, BARLEASE_DRIVER));
		else
			CHECK_OK(barlease_device_unbind(bdf, &none));
		CHECK_OK(barlease_device_get_binding(bdf, &was));
		CHECK(!strcmp(was.driver, bound ? BARLEASE_DRIVER : ""));
		for (size_t i = 0; i < sizeof(drivers) / sizeof(*drivers); i++) {
			struct barlease_binding other = was;

			CHECK_ERRNO(barlease_device_bind(bdf, drivers[i]), ENODEV);
			check_binding(bdf, &was);
			strcpy(other.driver, drivers[i]);
			CHECK_ERRNO(barlease_device_unbind(bdf, &other), ENODEV);
			check_binding(bdf, &was);
		}
	}
}

TEST(library_survive, "a map that survives reads as ones after a revoke, for good")
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE |
							 BARLEASE_MAP_PREFAULT };
	struct barlease_device dev = open_device(RAM_DEVICE);

	for (uint32_t round = 0; round < rounds(100); round++) {
		int fd = lease(&dev, RAM_BAR, MIB(2), MIB(6));
		struct barlease_map *map = barlease_map(fd, &options);

		CHECK(map);
		barlease_write32(map, MIB(5), round);
		CHECK_EQ(barlease_read32(map, MIB(5)), round);
		CHECK_EQ(barlease_map_lost(map), 0);
		CHECK_OK(abi_revoke(dev.device_fd, fd));
		CHECK_EQ(barlease_read32(map, MIB(5)), UINT32_MAX);
		CHECK_EQ(barlease_map_lost(map), 1);
		barlease_write32(map, 0, 1);
		CHECK_EQ(barlease_read32(map, 0), UINT32_MAX);
		for (uint64_t at = 0; at < MIB(6); at += PAGE_SIZE)
			CHECK_LOADS((char *)barlease_map_addr(map) + at);
		CHECK_ERRNO(barlease_map_restore(map), ENODEV);
		CHECK_EQ(barlease_map_lost(map), 1);
		CHECK_OK(barlease_unmap(map));
		close(fd);
	}
}

TEST(library_restore, "a map that was lost as decoding was off can be restored")
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, MIB(2), MIB(6));
	struct barlease_map *map = barlease_map(fd, &options);

	CHECK(map);
	for (uint32_t round = 0; round < 20; round++) {
		set_decoding(&dev, true);
		CHECK_OK(barlease_map_restore(map));
		CHECK_EQ(barlease_map_lost(map), 0);
		barlease_write32(map, MIB(4), round);
		CHECK_EQ(barlease_read32(map, MIB(4)), round);
		set_decoding(&dev, false);
		CHECK_EQ(barlease_read32(map, MIB(4)), UINT32_MAX);
		CHECK_EQ(barlease_map_lost(map), 1);
		CHECK_ERRNO(barlease_map_restore(map), EIO);
		CHECK_EQ(barlease_read32(map, MIB(4)), UINT32_MAX);
		options.flags |= BARLEASE_MAP_PREFAULT;
		CHECK(!barlease_map(fd, &options));
		CHECK_EQ(errno, EIO);
	}
	CHECK_OK(barlease_unmap(map));
}

static void use_in_child(int sock, void *arg)
{
	struct barlease_map *map = arg;

	(void)sock;
	CHECK_EQ(barlease_read32(map, 0), UINT32_MAX);
	CHECK_EQ(barlease_map_lost(map), 1);
	CHECK_OK(barlease_map_restore(map));
	CHECK_EQ(barlease_read32(map, 0), 77);
	CHECK_OK(barlease_unmap(map));
}

TEST(library_fork, "a forked child restores its own copy of a map")
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE);
	struct barlease_map *map = barlease_map(fd, &options);
	struct kid kid;

	CHECK(map);
	barlease_write32(map, 0, 77);
	set_decoding(&dev, false);
	CHECK_EQ(barlease_read32(map, 0), UINT32_MAX);
	set_decoding(&dev, true);
	kid = kid_start(use_in_child, map);
	kid_join(&kid);
	CHECK_EQ(barlease_map_lost(map), 1);
	CHECK_OK(barlease_map_restore(map));
	CHECK_EQ(barlease_read32(map, 0), 77);
	CHECK_OK(barlease_unmap(map));
}
