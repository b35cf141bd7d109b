// SPDX-License-Identifier: MIT
/*
 * hostile.c - what a lessee may do to a DMABUF that is not the driver's
 * business, and races of calls: none of it changes what a lease is.
 */
#define _GNU_SOURCE
#include <linux/dma-buf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)

/* As <drm/drm.h> and <drm/vgem_drm.h> have them, which libdrm brings. */
struct prime_handle {
	uint32_t handle, flags;
	int32_t fd;
};
struct create_dumb {
	uint32_t height, width, bpp, flags, handle, pitch;
	uint64_t size;
};
struct fence_attach {
	uint32_t handle, flags, out_fence, pad;
};
#define CREATE_DUMB        _IOWR('d', 0xb2, struct create_dumb)
#define PRIME_HANDLE_TO_FD _IOWR('d', 0x2d, struct prime_handle)
#define VGEM_FENCE_ATTACH  _IOWR('d', 0x41, struct fence_attach)
#define VGEM_FENCE_WRITE   1

/* A fence that nobody signals, as a sync file. */
static int dead_fence(void)
{
	struct create_dumb dumb = { .height = 1, .width = 1024, .bpp = 32 };
	struct dma_buf_export_sync_file sync = { .flags = DMA_BUF_SYNC_RW };
	struct fence_attach fence = { .flags = VGEM_FENCE_WRITE };
	struct prime_handle prime = { .flags = O_CLOEXEC | O_RDWR };
	int card;

	CHECK_EQ(system("modprobe vgem"), 0);
	card = (int)CHECK_OK(open("/dev/dri/card0", O_RDWR | O_CLOEXEC));
	CHECK_OK(ioctl(card, CREATE_DUMB, &dumb));
	fence.handle = prime.handle = dumb.handle;
	CHECK_OK(ioctl(card, VGEM_FENCE_ATTACH, &fence));
	CHECK_OK(ioctl(card, PRIME_HANDLE_TO_FD, &prime));
	CHECK_OK(ioctl(prime.fd, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &sync));
	return sync.fd;
}

TEST(hostile_fence, "a fence that a lessee imports holds up no access and no revoke")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	struct dma_buf_import_sync_file sync = { .flags = DMA_BUF_SYNC_WRITE,
						 .fd = dead_fence() };
	char *at = map(fd, 0, MIB(4), READ_WRITE);

	CHECK_OK(ioctl(fd, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &sync));
	CHECK_STORES(at);
	CHECK_STORES(map(fd, 0, MIB(4), READ_WRITE));
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	CHECK_GONE(at);
}

TEST(hostile_name, "a lessee that renames a lease changes its name alone")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	int fd = lease(&dev, RAM_BAR, 0, MIB(4));
	uint64_t id = info(&dev, fd).id;
	char *at = map(fd, 0, MIB(4), READ_WRITE);

	CHECK_OK(ioctl(fd, DMA_BUF_SET_NAME_B, "9 live rw uc\n8 live"));
	CHECK_EQ(lease_rows(dev.bdf), 1);
	CHECK_EQ(info(&dev, fd).id, id);
	CHECK_STORES(at);
	CHECK_OK(abi_revoke(dev.device_fd, fd));
	CHECK_GONE(at);
}

/* Closes whatever has the number that the next export will get. */
struct race {
	atomic_bool over;
	int fd;
};

static void *close_at_once(void *shared)
{
	struct race *race = shared;

	while (!race->over)
		close(race->fd);
	return NULL;
}

TEST(race_export_close, "an fd closed while its export returns harms nothing")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct vfio_region_dma_range range = { 0, PAGE_SIZE };
	struct race race = { .fd = lease(&dev, RAM_BAR, 0, PAGE_SIZE) };
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, close_at_once, &race), 0);
	for (int round = 0; round < (int)rounds(20000); round++) {
		int fd = (int)CHECK_OK(
			abi_export(dev.device_fd, RAM_BAR, &range, 1, O_RDWR));

		/* The thread was not done with the last one. */
		if (fd != race.fd)
			close(fd);
	}
	race.over = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	close(race.fd);
	CHECK_EQ(lease_rows(dev.bdf), 0);
}

/* One address, mapped and unmapped over and over. */
struct flicker {
	atomic_bool over;
	int fd;
	char *at;
};

static void *map_and_unmap(void *shared)
{
	struct flicker *flicker = shared;

	while (!flicker->over) {
		CHECK_OK(mmap(flicker->at, MIB(4), READ_WRITE, MAP_SHARED | MAP_FIXED,
			      flicker->fd, 0));
		CHECK_OK(mprotect(flicker->at + MIB(1), MIB(1), PROT_NONE));
		CHECK_OK(munmap(flicker->at, MIB(4)));
	}
	return NULL;
}

TEST(race_prefault_unmap,
     "a prefault while mappings come and go returns, without error")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct flicker flicker = { .fd = lease(&dev, RAM_BAR, 0, MIB(4)) };
	pthread_t thread;
	char *stays;

	/* One below and one above the address, so that the walk goes over it. */
	map_at(flicker.fd, 0, MIB(4), READ_WRITE, 0);
	flicker.at = map_at(flicker.fd, 0, MIB(4), PROT_READ, PAGE_SIZE);
	stays = map_at(flicker.fd, 0, MIB(4), READ_WRITE, PAGE_SIZE);
	CHECK_EQ(pthread_create(&thread, NULL, map_and_unmap, &flicker), 0);
	for (int round = 0; round < (int)rounds(3000); round++)
		CHECK_OK(abi_prefault(flicker.fd));
	flicker.over = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_STORES(stays);
	CHECK_OK(abi_revoke(dev.device_fd, flicker.fd));
	CHECK_GONE(stays);
}

static void *prefault_till_revoked(void *lease)
{
	while (!abi_prefault(*(int *)lease))
		;
	return (void *)(intptr_t)errno;
}

TEST(race_prefault_revoke, "a prefault that meets a revoke says ENODEV, nothing else")
{
	struct barlease_device dev = open_device(RAM_DEVICE);

	for (int round = 0; round < 200; round++) {
		int fd = lease(&dev, RAM_BAR, 0, MIB(32));
		char *at = map_at(fd, 0, MIB(32), READ_WRITE, PAGE_SIZE);
		pthread_t thread;
		void *error;

		CHECK_EQ(pthread_create(&thread, NULL, prefault_till_revoked, &fd), 0);
		while (faults(&dev, fd) < random_word() % 512)
			;
		CHECK_OK(abi_revoke(dev.device_fd, fd));
		CHECK_EQ(pthread_join(thread, &error), 0);
		CHECK_EQ((intptr_t)error, ENODEV);
		for (uint64_t off = 0; off < MIB(32); off += KIB(64))
			CHECK_EQ(page_entry(at + off).level, PTWALK_NONE);
		CHECK_GONE(at);
		CHECK_OK(munmap(at, MIB(32)));
		close(fd);
	}
}
